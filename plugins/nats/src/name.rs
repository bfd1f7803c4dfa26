//! Texts of users as tokens of subjects and keys, which hold few characters and end at a dot.

use std::fmt::Write as _;

use pype_plugin::prelude::*;

/// The line that names a subject to the server has room for 4096 bytes; two such tokens and what stands around them fit.
const LONGEST: usize = 1500;

/// The token that stands for a text and for no other: letters, digits, `_` and `-` stay as they are, of everything else the
/// bytes are written as `=XX`.
pub(crate) fn token(text: &str) -> Result<String> {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("a string takes it");
        }
    }
    if token.len() > LONGEST {
        let start: String = text.chars().take(40).collect();
        let message = format!("`{start}…` is too long for NATS: as a token it has {} bytes", token.len());
        return Err(Error::new(ErrorKind::Data, "name-too-long", message).hint(format!("{LONGEST} are allowed")));
    }
    // A token may not be empty; no other text gives this one.
    Ok(if token.is_empty() { "=".to_owned() } else { token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_a_legal_token_of_its_own() {
        for (text, expect) in [
            ("0198c5a2-71b_Z", "0198c5a2-71b_Z"),
            ("", "="),
            ("=", "=3D"),
            ("a.b *>", "a=2Eb=20=2A=3E"),
            ("\u{fc}", "=C3=BC"),
            ("\0", "=00"),
        ] {
            assert_eq!(token(text), Ok(expect.to_owned()));
        }
        assert_eq!(token(&"x".repeat(LONGEST)).map(|token| token.len()), Ok(LONGEST));
        assert_eq!(token(&".".repeat(501)).expect_err("too long").code, "name-too-long");
    }
}
