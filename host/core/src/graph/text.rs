//! How wide a text is, and how it is put into markup.

/// How wide a text is in a sans serif of this size. Fonts differ, so it is rather more than less.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(share).sum::<f64>() * size
}

/// What part of the font's size a character is wide: the mean of the usual fonts, rounded up.
fn share(character: char) -> f64 {
    match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' | ' ' => 0.33,
        'f' | 'r' | 't' | 'I' | '(' | ')' | '[' | ']' | '{' | '}' | '-' | '/' | '\\' | '"' | '·' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '→' | '…' => 0.98,
        'A'..='Z' => 0.74,
        'a'..='z' | '0'..='9' | '_' => 0.62,
        // Scripts whose characters are squares.
        '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{1f000}'.. => 1.05,
        _ => 0.72,
    }
}

/// At most so many characters; the last says that there are more.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// As text between tags, or in an attribute within double quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML knows no other control characters, not even as references.
            '\t' | '\n' | '\r' => escaped.push(' '),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_never_gets_out_of_a_text() {
        assert_eq!(escaped("a < b && \"c\"\u{0}</script>"), "a &lt; b &amp;&amp; &quot;c&quot;\u{fffd}&lt;/script&gt;");
    }

    #[test]
    fn a_long_text_says_that_there_is_more() {
        assert_eq!(shortened("läuft", 5), "läuft");
        assert_eq!(shortened("läuft weiter", 6), "läuft…");
    }
}
