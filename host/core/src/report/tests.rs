use sha2::{Digest, Sha256};

use super::*;

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A browser runs no other script.
#[test]
fn the_policy_names_the_script() {
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    assert_eq!(SCRIPT_SHA256.trim(), base64(&Sha256::digest(SCRIPT)), "this belongs into page.js.sha256");
    assert!(!SCRIPT.contains("</"), "it must not end the element that it stands in");
}

#[test]
fn only_what_is_between_backticks_is_code() {
    let prose = |text| prose(text).to_string();
    assert_eq!(prose("`a<b` is not > `c`"), "<code>a&lt;b</code> is not &gt; <code>c</code>");
    assert_eq!(prose("it`s"), "it`s");
}
