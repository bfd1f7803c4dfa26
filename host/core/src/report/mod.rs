//! The report of a run: one page that needs nothing but itself.
//!
//! It is made from the plan and the event log alone, so it can be made again at any time, and the same comes out. `page`
//! settles what it says; `page.html` says it. The template escapes all that is put into it; the styles, the script and the
//! graph alone go in as they are. The page's own policy forbids every request, and every script but the one whose digest
//! it names, so that nothing a user or a plugin has written can come to life in it.

mod page;
mod redact;
#[cfg(test)]
mod tests;
mod time;
mod timeline;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, HtmlEscape, UndefinedBehavior};

use crate::flow::plan::Plan;
use crate::run::history::History;
use page::Page;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Of [`SCRIPT`], in base64. A test keeps it right.
const SCRIPT_SHA256: &str = include_str!("page.js.sha256");

/// The report of a run as a page of HTML.
#[must_use]
pub fn html(plan: &Plan, history: &History) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(without_blank_lines());
    environment.add_filter("prose", prose);
    let page = Page::of(plan, history);
    environment.render_str(TEMPLATE, Serde(page)).expect("the template names only what every page has, as a test shows")
}

fn without_blank_lines() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    syntax.expect("the default delimiters differ from one another")
}

/// What stands between backticks in messages is code.
fn prose(text: &str) -> Value {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return Value::from(text);
    }
    let marked = parts.iter().enumerate().map(|(at, part)| {
        let part = HtmlEscape(part);
        if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_string() }
    });
    Value::from_safe_string(marked.collect())
}
