//! "Did you mean …": the nearest of the known names, when one is near enough to be a slip.

/// The candidate nearest to `given`, if it is near: a third of the letters may differ.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = given.to_lowercase();
    let length = wanted.chars().count();
    let limit = match length {
        // Every short name is near every other.
        0..=2 => 0,
        letters => (letters / 3).max(1),
    };
    candidates
        .into_iter()
        // At least so many letters differ; a flow may have thousands of ids to compare with.
        .filter(|name| name.chars().count().abs_diff(length) <= limit)
        .map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// The help text for an unknown name: the nearest candidate, or else the list of all of them.
pub(crate) fn help<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>, what: &str) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    if let Some(name) = nearest(given, candidates.iter().copied()) {
        return Some(format!("did you mean `{name}`?"));
    }
    if candidates.is_empty() {
        return None;
    }
    Some(format!("{what}: {}", quoted_list(candidates)))
}

/// "`a`, `b`, `c`", cut after a dozen.
pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(", … ({} in all)", names.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_a_stranger_is_not() {
        let names = ["csv_source", "csv_sink", "filter_mod"];
        assert_eq!(nearest("csv_sorce", names), Some("csv_source"));
        assert_eq!(nearest("CSV_SINK", names), Some("csv_sink"));
        assert_eq!(nearest("kafka", names), None);
    }
}
