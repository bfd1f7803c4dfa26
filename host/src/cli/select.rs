//! What a user selects with `--select`.

use std::io::Write;

use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::label::{Rule, TextError};

use super::Exit;
use super::render::{Failure, Style, diagnostics_json, in_argument};

/// An argument that is no rule.
#[derive(Debug)]
pub(crate) struct Refused {
    given: String,
    found: Diagnostic,
}

/// Reads a rule that was given as `argument`.
///
/// # Errors
/// It is malformed.
pub(crate) fn rule(argument: &str, given: &str) -> Result<Rule, Refused> {
    given.parse().map_err(|error| Refused::new(argument, given, error))
}

impl Refused {
    fn new(argument: &str, given: &str, error: TextError) -> Self {
        Self { given: given.to_owned(), found: error.into_diagnostic(argument) }
    }

    /// Tells what is wrong and where: to programs on `out`, to people on standard error.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn show(self, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
        if json {
            write!(out, "{}", diagnostics_json(&Diagnostics::from(self.found)))?;
        } else {
            let stderr = std::io::stderr();
            write!(stderr.lock(), "{}", in_argument(&self.found, &self.given, Style::of(&stderr)))?;
        }
        Ok(Exit::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_rule_is_shown_with_its_place() {
        let refused = rule("--select", "type = mod and category").expect("a rule");
        assert_eq!(refused.to_string(), "type = mod and category");
        let Refused { given, found } = rule("--select", "type = mod and name lke x").expect_err("malformed");
        let expect = "\
error[bad-rule]: `lke` is not an operator
 --> --select:1:21
  |
1 | type = mod and name lke x
  |                     ^^^
  |
  = help: write `=`, `!=`, `<`, `>=`, `in (…)`, `between … and …`, `exists`, `and` or `or`
";
        assert_eq!(in_argument(&found, &given, Style::Plain), expect);
    }
}
