//! Problems as a user sees them: the place, the offending line, what to do next. Or the same as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use pype_core::diagnostic::{Diagnostic, Diagnostics, Severity, Span};

use super::Exit;
use crate::loader::LoadError;
use crate::registry::RegistryError;

/// Whether a text may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Text only.
    Plain,
    /// With the colours of a terminal.
    Coloured,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        match stream.is_terminal() && !unwanted && !dumb {
            true => Self::Coloured,
            false => Self::Plain,
        }
    }

    /// `text` in an SGR colour: `"1;31"` is bold red.
    pub(super) fn paint(self, sgr: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{sgr}m{text}\x1b[0m"),
        }
    }
}

/// The findings in documents, each with its line, and how many there are.
pub(crate) fn diagnostics(found: &Diagnostics, style: Style) -> String {
    let mut sources = BTreeMap::new();
    let mut text = String::new();
    for one in found.iter() {
        let source = sources.entry(&one.file).or_insert_with(|| std::fs::read_to_string(&one.file).ok());
        text.push_str(&diagnostic(one, source.as_deref(), style));
        text.push_str("\n\n");
    }
    text + &tally(found)
}

/// A finding in an argument, which it names where others name a file; `given` is the argument's text.
pub(crate) fn in_argument(one: &Diagnostic, given: &str, style: Style) -> String {
    diagnostic(one, Some(given), style) + "\n"
}

/// The findings as a JSON array.
pub(crate) fn diagnostics_json(found: &Diagnostics) -> String {
    let sorted: Vec<&Diagnostic> = found.iter().collect();
    serde_json::to_string_pretty(&sorted).expect("findings are plain data") + "\n"
}

fn tally(found: &Diagnostics) -> String {
    let errors = found.iter().filter(|one| one.severity == Severity::Error).count();
    let counts = [(errors, "error"), (found.len() - errors, "warning")];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    match counts.is_empty() {
        true => String::new(),
        false => counts.join(", ") + "\n",
    }
}

fn diagnostic(one: &Diagnostic, source: Option<&str>, style: Style) -> String {
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let path = shown(&one.file);
    let excerpt = one.span.zip(source).and_then(|(span, source)| excerpt(source, span));
    let title = level.primary_title(&one.message).id(one.code);
    let group = match (excerpt, one.span) {
        (Some((lines, marked)), Some(span)) => title.element(
            Snippet::source(lines)
                .path(path)
                .line_start(line(span))
                .fold(false)
                .annotation(AnnotationKind::Primary.span(marked)),
        ),
        (None, Some(span)) => {
            let column = usize::try_from(span.start.column).unwrap_or(usize::MAX);
            title.element(Origin::path(path).line(line(span)).char_column(column))
        }
        (_, None) => title.element(Origin::path(path)),
    };
    let group: Group<'_> = match &one.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    };
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    renderer.render(&[group])
}

fn line(span: Span) -> usize {
    usize::try_from(span.start.line).unwrap_or(usize::MAX)
}

/// The first line of the span and, within it, what is marked. None if the file is not what it was.
fn excerpt(source: &str, span: Span) -> Option<(&str, Range<usize>)> {
    let before = source.get(..span.start.offset)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = source.get(start..)?;
    let lines = rest.split('\n').next()?.trim_end_matches('\r');
    let from = span.start.offset - start;
    let to = span.end.offset.saturating_sub(start).clamp(from, lines.len().max(from));
    lines.get(from..to.min(lines.len()))?;
    Some((lines, from..to.max(from)))
}

/// Relative to where the user is, if it is below.
pub(crate) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).unwrap_or(path);
    match path.as_os_str().is_empty() {
        true => ".".to_owned(),
        false => path.display().to_string(),
    }
}

/// What ends a command: what is wrong, where, why, and the next step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// A stable name in kebab-case.
    pub(crate) code: String,
    /// The kind of a plugin's error.
    pub(crate) kind: Option<String>,
    /// What is wrong.
    pub(crate) message: String,
    /// Where: a node, a file.
    pub(crate) place: Option<String>,
    /// What caused it, nearest first.
    pub(crate) causes: Vec<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// What the process ends with.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A failure of what the user asked for.
    pub(crate) fn invalid(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            kind: None,
            message: message.into(),
            place: None,
            causes: Vec::new(),
            hint: None,
            exit: Exit::Invalid,
        }
    }

    /// The same, with what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same, with where it happened.
    pub(crate) fn place(self, place: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..self }
    }

    /// Whether nobody reads our output any more, which is no failure: `pype list-modules | head -1`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.code == BROKEN_PIPE
    }

    /// For people.
    pub(crate) fn text(&self, style: Style) -> String {
        let title = style.paint("1;31", &format!("error[{}]", self.code));
        let mut text = format!("{title}: {}\n", style.paint("1", &printable(&self.message)));
        let mut line = |name: &str, value: &str| {
            let value = printable(value).replace('\n', "\n         ");
            writeln!(text, "{}{value}", style.paint("1;34", &format!("{name:>7}: "))).expect("a string takes any text");
        };
        self.place.iter().for_each(|place| line("in", place));
        self.kind.iter().for_each(|kind| line("kind", kind));
        self.causes.iter().for_each(|cause| line("cause", cause));
        self.hint.iter().for_each(|hint| line("help", hint));
        text
    }
}

const BROKEN_PIPE: &str = "broken-pipe";

impl From<&pype_plugin::Error> for Failure {
    fn from(error: &pype_plugin::Error) -> Self {
        Self {
            kind: Some(match error.retryable {
                true => format!("{} (trying again may help)", error.kind),
                false => error.kind.to_string(),
            }),
            causes: error.causes.clone(),
            hint: error.hint.clone(),
            exit: Exit::Failed,
            ..Self::invalid(&error.code, &error.message)
        }
    }
}

impl From<&LoadError> for Failure {
    fn from(error: &LoadError) -> Self {
        let causes = match error {
            LoadError::Layout { differences, .. } => vec![first_lines(differences)],
            LoadError::Crashed { stderr, .. } if !stderr.trim().is_empty() => vec![first_lines(stderr)],
            LoadError::Io { source, .. } => vec![source.to_string()],
            LoadError::Missing { .. }
            | LoadError::NotALibrary { .. }
            | LoadError::NotAPlugin { .. }
            | LoadError::OtherApi { .. }
            | LoadError::PanicAbort { .. }
            | LoadError::Changed { .. }
            | LoadError::Crashed { .. }
            | LoadError::Plugin { .. }
            | LoadError::NoCache => Vec::new(),
        };
        Self { causes, ..Self::invalid("library-refused", error.to_string()).hint(error.hint()) }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::from(&error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Library(error) => Self::from(error),
            RegistryError::Io { .. } => {
                Self { exit: Exit::Failed, ..Self::invalid(error.code(), error.to_string()).hint(error.hint()) }
            }
            _ => Self::invalid(error.code(), error.to_string()).hint(error.hint()),
        }
    }
}

/// Of writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { "output" };
        Self { exit: Exit::Failed, ..Self::invalid(code, format!("cannot write the output: {error}")) }
    }
}

fn first_lines(text: &str) -> String {
    const SHOWN: usize = 8;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let more = if lines.len() > SHOWN { format!("\n… ({} lines in all)", lines.len()) } else { String::new() };
    lines[..lines.len().min(SHOWN)].join("\n") + &more
}

/// Without what could steer a terminal: messages may hold bytes of the data.
pub(super) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(escape).collect()
}

/// Rows of cells as columns of equal width, two spaces between.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in rows {
        let padded: Vec<String> =
            row.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at).unwrap_or_default())).collect();
        writeln!(text, "{}", padded.join("  ").trim_end()).expect("a string takes any text");
    }
    text
}

/// `text` in lines of at most `width` characters, as far as its words allow, each after `indent`.
pub(super) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(format!("{indent}{word}")),
        }
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use pype_core::diagnostic::Position;

    use super::*;

    fn span(text: &str, from: usize, to: usize) -> Span {
        let start = Position::START.after(&text[..from]);
        Span { start, end: start.after(&text[from..to]) }
    }

    fn check(text: &str, from: usize, to: usize, expect: &str) {
        let one = Diagnostic::error("unknown-key", "flow.yaml", "unknown key `settngs`")
            .at(span(text, from, to))
            .help("did you mean `settings`?");
        assert_eq!(diagnostic(&one, Some(text), Style::Plain), expect);
    }

    #[test]
    fn a_finding_shows_its_line() {
        check(
            "flow:\n  name: é\nsettngs:\n  retries: 1\n",
            17,
            24,
            "error[unknown-key]: unknown key `settngs`\n --> flow.yaml:3:1\n  |\n3 | settngs:\n  | ^^^^^^^\n  |\n  = help: did you \
             mean `settings`?",
        );
    }

    #[test]
    fn a_finding_over_several_lines_shows_the_first_and_one_at_the_end_shows_none() {
        let text = "modules:\r\n  - id: a\r\n";
        check(
            text,
            0,
            18,
            "error[unknown-key]: unknown key `settngs`\n --> flow.yaml:1:1\n  |\n1 | modules:\n  | ^^^^^^^^\n  |\n  = help: did you \
             mean `settings`?",
        );
        check(
            text,
            text.len(),
            text.len(),
            "error[unknown-key]: unknown key `settngs`\n --> flow.yaml:3:1\n  |\n3 |\n  | ^\n  |\n  = help: did you mean \
             `settings`?",
        );
    }

    #[test]
    fn a_file_that_shrank_or_is_gone_still_has_its_place() {
        let one = Diagnostic::warning("odd", "flow.yaml", "odd").at(span("a\nbcd", 3, 5));
        for source in [None, Some("x")] {
            assert_eq!(diagnostic(&one, source, Style::Plain), "warning[odd]: odd\n--> flow.yaml:2:2");
        }
    }

    #[test]
    fn a_failure_says_what_where_why_and_what_next() {
        let error = pype_plugin::Error::new(pype_plugin::ErrorKind::Data, "bad-row", "row 3\x1b[2J has no date")
            .caused_by(io::Error::other("line one\nline two"))
            .hint("look at row 3");
        let text = Failure::from(&error).place("node `a` (csv_source)").text(Style::Plain);
        let expect = "error[bad-row]: row 3\u{fffd}[2J has no date\n     in: node `a` (csv_source)\n   kind: data\n  cause: \
                      line one\n         line two\n   help: look at row 3\n";
        assert_eq!(text, expect);
    }
}
