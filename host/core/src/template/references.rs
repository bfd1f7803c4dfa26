//! Which names a template uses, found without running it.

use std::collections::BTreeSet;

use minijinja::{Error, ErrorKind};

use super::engine::{ENVIRONMENT, Leaf, MAX_STEPS};
use super::globals::split_global;
use super::iteration::depth;
use crate::diagnostic::Span;
use crate::document::Source;
use crate::suggest;

/// The free names of one template, sorted by whom they are asked of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Dotted, without `context.` before it; empty for the whole context.
    pub context: BTreeSet<String>,
    /// `env.*`.
    pub env: BTreeSet<String>,
    /// `iter.*`: `item`, `outer.index`; which loops there must be, [`References::loops`] says.
    pub iter: BTreeSet<String>,
    /// `secret.*`.
    pub secret: BTreeSet<String>,
    /// `moduleid__Var`, as written.
    pub globals: BTreeSet<String>,
    /// Names that are none of these.
    pub unknown: BTreeSet<String>,
}

impl References {
    /// The names that a text uses; none if it holds no template.
    ///
    /// # Errors
    /// If the template is malformed: what is wrong, in words.
    pub fn of_text(text: &str) -> Result<References, String> {
        let Some(leaf) = Leaf::of(text) else { return Ok(References::default()) };
        References::of(leaf).map_err(|error| words(&error))
    }

    /// The names that a bare expression uses.
    ///
    /// # Errors
    /// If the expression is malformed: what is wrong, in words.
    pub fn of_expression(text: &str) -> Result<References, String> {
        References::of(Leaf::Expression(text)).map_err(|error| words(&error))
    }

    pub(super) fn of(leaf: Leaf<'_>) -> Result<References, Error> {
        let names = match leaf {
            Leaf::Expression(text) => ENVIRONMENT.compile_expression_owned(text)?.undeclared_variables(true),
            Leaf::Text(text) => ENVIRONMENT.template_from_str(text)?.undeclared_variables(true),
        };
        let builtin: BTreeSet<&str> = ENVIRONMENT.globals().map(|(name, _)| name).collect();
        let mut references = References::default();
        for name in names {
            if !builtin.contains(name.as_str()) {
                references.sort_in(&name);
            }
        }
        Ok(references)
    }

    /// Can it only be filled in when the flow runs?
    #[must_use]
    pub fn need_the_run(&self) -> bool {
        let sets = [&self.env, &self.iter, &self.secret, &self.globals];
        sets.iter().any(|set| !set.is_empty())
    }

    /// How many loops, one in the other, must be around a module for all names to be there.
    #[must_use]
    pub fn loops(&self) -> usize {
        self.iter.iter().filter_map(|name| depth(name)).max().unwrap_or(0)
    }

    /// The names that nothing can stand for.
    pub(super) fn misnamed(&self) -> Vec<Misnamed> {
        let env = self
            .env
            .contains("")
            .then(|| Misnamed::unnamed("unnamed-env", "env", "the environment is only asked by name", "env.NAME"));
        let secret = self.secret.contains("").then(|| {
            Misnamed::unnamed("unnamed-secret", "secret", "secrets are only asked by name", "secret.path.key")
        });
        let iter = self.iter.iter().filter(|name| depth(name).is_none()).map(|name| Misnamed::no_iteration(name));
        let unknown = self.unknown.iter().map(|name| Misnamed::unknown(name));
        env.into_iter().chain(secret).chain(iter).chain(unknown).collect()
    }

    fn sort_in(&mut self, name: &str) {
        let (space, rest) = name.split_once('.').unwrap_or((name, ""));
        let set = match space {
            "context" => &mut self.context,
            "env" => &mut self.env,
            "iter" => &mut self.iter,
            "secret" => &mut self.secret,
            _ if split_global(space).next().is_some() => {
                self.globals.insert(space.to_owned());
                return;
            }
            _ => {
                self.unknown.insert(space.to_owned());
                return;
            }
        };
        set.insert(rest.to_owned());
    }
}

/// A name that no template may use.
pub(super) struct Misnamed {
    pub(super) code: &'static str,
    /// As it stands in the template.
    pub(super) name: String,
    pub(super) message: String,
    pub(super) help: String,
}

impl Misnamed {
    fn unnamed(code: &'static str, space: &str, message: &str, form: &str) -> Misnamed {
        Misnamed { code, name: space.to_owned(), message: message.to_owned(), help: format!("write `{form}`") }
    }

    fn no_iteration(name: &str) -> Misnamed {
        let name = if name.is_empty() { "iter".to_owned() } else { format!("iter.{name}") };
        Misnamed {
            code: "unknown-name",
            message: format!("`{name}` is not a name that templates know"),
            help: "a loop has `iter.item` and `iter.index`, the one around it `iter.outer.item` and \
                   `iter.outer.index`"
                .to_owned(),
            name,
        }
    }

    fn unknown(name: &str) -> Misnamed {
        let help = suggest::nearest(name, ["context", "env", "iter", "secret"]).map_or_else(
            || format!("write `context.{name}`, `env.{name}`, or a global `moduleid__{name}`"),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("`{name}` is not a name that templates know");
        Misnamed { code: "unknown-name", name: name.to_owned(), message, help }
    }
}

/// Where a name stands in the templates of a leaf, on whichever of its lines; the whole leaf if it cannot be told.
pub(crate) fn name_span(source: &Source, leaf: Span, name: &str) -> Span {
    let text = source.slice(leaf);
    let Some(at) = text.match_indices(name).map(|(at, _)| at).find(|at| in_template(text, *at)) else { return leaf };
    let start = leaf.start.after(&text[..at]);
    Span { start, end: start.after(name) }
}

/// Does it glue values together with `~`?
pub(super) fn concatenates(leaf: Leaf<'_>) -> bool {
    match leaf {
        Leaf::Expression(text) => text.contains('~'),
        Leaf::Text(text) => text.match_indices('~').any(|(at, _)| in_template(text, at)),
    }
}

fn in_template(text: &str, at: usize) -> bool {
    let before = &text[..at];
    let opened = before.rfind("{{").max(before.rfind("{%"));
    opened.is_some() && opened > before.rfind("}}").max(before.rfind("%}"))
}

/// What is wrong with a bare expression, if anything is.
pub(crate) fn expression_error(text: &str) -> Option<String> {
    References::of_expression(text).err()
}

/// minijinja's message without the line it counts within the leaf.
pub(super) fn words(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it takes more than {MAX_STEPS} steps");
    }
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_running() {
        let found = References::of_text(
            "{{ context.db.host }} {{ Src__Rows + 1 }} {% for i in range(3) %}{{ i }}{{ env.HOME }}{% endfor %} {{ oops }}",
        );
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let expected = References {
            context: set("db.host"),
            env: set("HOME"),
            globals: set("Src__Rows"),
            unknown: set("oops"),
            ..References::default()
        };
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn a_malformed_template_says_why() {
        assert!(References::of_text("{{ a + }}").is_err());
        assert!(References::of_text("{% if a %}").is_err());
        assert_eq!(References::of_text("age > 18"), Ok(References::default()));
    }
}
