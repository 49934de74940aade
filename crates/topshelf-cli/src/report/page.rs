//! A page: headings, prose, tables and charts, readable on paper, on a phone, in the dark.

use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2024;--soft:#5d666f;--line:#d9dee3;--card:#f6f8fa;\
--c1:#2563c9;--c2:#c2560c;--c3:#18794e;--c4:#8145b5;--c5:#c4314b;--c6:#7a828a}\
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e8eb;--soft:#9aa4ad;--line:#343a40;\
--card:#1d2125;--c1:#6aa5ff;--c2:#f0924c;--c3:#4cc38a;--c4:#c39af0;--c5:#ff7a90;--c6:#98a1a9}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}\
main{max-width:64rem;margin:0 auto;padding:2rem 1rem 4rem}\
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.5rem 0 .5rem}\
p{margin:.5rem 0;max-width:46rem}.soft{color:var(--soft)}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;\
font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .8rem .3rem 0;text-align:right;border-bottom:1px solid var(--line);\
vertical-align:top}\
th{color:var(--soft);font-weight:600;white-space:nowrap}\
th.text,td.text{text-align:left;min-width:10rem}\
tr.chosen td{font-weight:700}\
figure{margin:1rem 0;background:var(--card);border-radius:.5rem;padding:1rem}\
figcaption{font-weight:600;margin-bottom:.25rem}\
.charts{display:grid;margin:1rem 0;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}\
.charts figure{margin:0;max-width:40rem}\
svg{display:block;width:100%;height:auto;font:11.5px system-ui,sans-serif}\
svg text{fill:var(--soft)}svg text.label{fill:var(--fg)}\
svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}\
.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}\
.c6{--c:var(--c6)}\
svg .line{stroke:var(--c);fill:none;stroke-width:2;stroke-linejoin:round}\
svg .dashed{stroke-dasharray:5 4}svg .dot{fill:var(--c)}svg .ring{fill:none;stroke:var(--c);\
stroke-width:2}\
ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.2rem;margin:.25rem 0 0;padding:0;\
font-size:.85rem}\
ul.legend li::before{content:'';display:inline-block;width:.8em;height:.8em;border-radius:50%;\
background:var(--c);margin-right:.4em}\
blockquote{margin:.5rem 0;padding:.25rem 0 .25rem 1rem;border-left:3px solid var(--line)}\
blockquote p{margin:.25rem 0}";

/// A page that is being written.
pub(super) struct Page {
    title: String,
    body: String,
}

/// A cell of a table.
pub(super) enum Cell {
    Text(String),
    Number(String),
}

impl Page {
    pub(super) fn new(title: &str, below: &str) -> Self {
        let body = format!("<h1>{}</h1>\n<p class=\"soft\">{}</p>\n", escape(title), escape(below));
        Self { title: title.to_owned(), body }
    }

    pub(super) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text)); // a string takes all
    }

    pub(super) fn prose(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// What a reader may skip.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p class=\"soft\">{}</p>", escape(text));
    }

    /// A text with lines below it.
    pub(super) fn quote(&mut self, text: &str, lines: &[String]) {
        let _ = write!(self.body, "<blockquote><p>{}</p>", escape(text));
        for line in lines {
            let _ = write!(self.body, "<p class=\"soft\">{}</p>", escape(line));
        }
        self.body += "</blockquote>\n";
    }

    /// A table; the row at `chosen` stands out.
    pub(super) fn table(&mut self, headers: &[&str], rows: &[Vec<Cell>], chosen: Option<usize>) {
        self.body += "<div class=\"scroll\"><table><thead><tr>";
        for (place, header) in headers.iter().enumerate() {
            let text = rows.first().and_then(|row| row.get(place));
            let class = match text {
                Some(Cell::Text(_)) => " class=\"text\"",
                _ => "",
            };
            let _ = write!(self.body, "<th scope=\"col\"{class}>{}</th>", escape(header));
        }
        self.body += "</tr></thead>\n<tbody>\n";
        for (place, row) in rows.iter().enumerate() {
            self.body += if chosen == Some(place) { "<tr class=\"chosen\">" } else { "<tr>" };
            for cell in row {
                let _ = match cell {
                    Cell::Text(text) => {
                        write!(self.body, "<td class=\"text\">{}</td>", escape(text))
                    }
                    Cell::Number(text) => write!(self.body, "<td>{}</td>", escape(text)),
                };
            }
            self.body += "</tr>\n";
        }
        self.body += "</tbody></table></div>\n";
    }

    /// Charts beside each other, where there is room.
    pub(super) fn charts(&mut self, charts: impl IntoIterator<Item = String>) {
        self.body += "<div class=\"charts\">\n";
        for chart in charts {
            self.body += &chart;
        }
        self.body += "</div>\n";
    }

    pub(super) fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n\
             </html>\n",
            escape(&self.title),
            self.body
        )
    }
}

/// A text as HTML has it. Quotes, too, because it may stand in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Control characters have no place in HTML.
            other if other.is_control() && other != '\n' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_become_markup() {
        let mut page = Page::new("a <b> & \"c\"", "x");
        page.table(&["<i>"], &[vec![Cell::Text("<script>alert('1')</script>".to_owned())]], None);
        page.quote("</blockquote>", &["\u{0}<".to_owned()]);
        let html = page.finish();
        assert!(html.contains("<title>a &lt;b&gt; &amp; &quot;c&quot;</title>"), "{html}");
        assert!(!html.contains("<script") && !html.contains('\u{0}'), "{html}");
        assert_eq!(html.matches("</blockquote>").count(), 1);
    }
}
