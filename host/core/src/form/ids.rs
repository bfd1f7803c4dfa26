//! The ids of things in a row: those that are written, and those that are not.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostics;
use crate::document::{Source, Spanned};
use crate::name::{ModuleName, NodeId};

/// Of each stage its id: the one it gives itself, or else its module's name, which becomes `name_2` where another has
/// it. Ids differ in more than their case; those given twice are reported.
pub(crate) fn ids(
    source: &Source,
    stages: &[(Option<Spanned<NodeId>>, Spanned<ModuleName>)],
    found: &mut Diagnostics,
) -> Vec<Spanned<NodeId>> {
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    for id in stages.iter().filter_map(|(id, _)| id.as_ref()) {
        let line = id.span.start.line;
        if let Some(first) = taken.insert(id.value.as_str().to_lowercase(), line) {
            let message = format!("the id `{}` is given twice", id.value);
            let help = format!("line {first} has it; ids differ in more than their case");
            found.push(source.error("duplicate-id", id.span, message).help(help));
        }
    }
    let of = |(id, name): &(Option<Spanned<NodeId>>, Spanned<ModuleName>)| match id {
        Some(id) => id.clone(),
        None => {
            let free = free(name.value.as_str(), &taken);
            taken.insert(free.as_str().to_lowercase(), name.span.start.line);
            Spanned::new(free, name.span)
        }
    };
    stages.iter().map(of).collect()
}

fn free(name: &str, taken: &BTreeMap<String, u32>) -> NodeId {
    let numbered = (2..).map(|number| {
        let number = format!("_{number}");
        // A name may be as long as an id.
        let kept = name.len().min(64 - number.len());
        format!("{}{number}", &name[..kept])
    });
    let mut candidates = std::iter::once(name.to_owned()).chain(numbered);
    let free = candidates.find(|id| !taken.contains_key(&id.to_lowercase())).expect("numbers do not end");
    free.parse().expect("a module's name is an id, and so it is with digits after it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Position, Span};

    #[test]
    fn what_has_no_id_gets_the_first_that_is_free() {
        let long = "a".repeat(64);
        let at = |text: &str| Spanned::new(text.to_owned(), Span::at(Position::START));
        let name = |text: &str| at(text).map(|text| text.parse::<ModuleName>().expect("a module name"));
        let id = |text: &str| Some(at(text).map(|text| text.parse::<NodeId>().expect("an id")));
        let stages = [
            (None, name("log")),
            (id("LOG_2"), name("other")),
            (None, name("log")),
            (None, name(&long)),
            (None, name(&long)),
        ];
        let mut found = Diagnostics::new();
        let ids = ids(&Source::new("p.yaml", ""), &stages, &mut found);
        let ids: Vec<&str> = ids.iter().map(|id| id.value.as_str()).collect();
        let cut = format!("{}_2", "a".repeat(62));
        assert_eq!((ids, found.has_errors()), (vec!["log", "LOG_2", "log_3", &long, &cut], false));
    }
}
