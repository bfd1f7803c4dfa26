//! As a page of its own.

use super::text::escaped;
use super::{Graph, GroupKind, Mark};

impl Graph {
    /// As a page that fetches nothing and runs nothing.
    #[must_use]
    pub fn html(&self) -> String {
        let title = escaped(&self.title);
        let svg = self.svg();
        let legend = legend(self.meanings(), &self.marks());
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{legend}</p>\n\
             <div tabindex=\"0\" role=\"region\" aria-label=\"The graph\">\n{svg}</div>\n</body>\n</html>\n",
            include_str!("page.css")
        )
    }

    /// What its lines mean.
    fn meanings(&self) -> [&'static str; 3] {
        let is_pipeline = self.groups.iter().any(|group| group.kind == GroupKind::Part);
        match is_pipeline {
            true => {
                ["solid: the context, to the next stage", "thick, dashed: to the background", "dashed: after a failure"]
            }
            false => ["solid: data", "thick: data that is kept", "dashed: control, order|condition"],
        }
    }
}

fn legend(meanings: [&str; 3], marks: &[Mark]) -> String {
    let lines = meanings.map(str::to_owned);
    let marks = marks.iter().map(|mark| format!("{} {}", mark.sign(), mark.word()));
    let entries = lines.into_iter().chain(marks).map(|entry| format!("<span>{}</span>", escaped(&entry)));
    entries.collect::<Vec<_>>().join(" ")
}
