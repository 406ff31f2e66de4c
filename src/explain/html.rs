//! Makes a page for a browser: the listing, the stack's height over it, and the values as a table.
//!
//! Invariants:
//! - The page is whole: its style and script stand in it, and its policy forbids to load anything.
//! - Whatever comes from the input stands in the page as escaped text, never in the script.

use std::fmt::Write;

use super::{Explained, Explanation, MAX_PLACES, Row};

/// Rows and values that a browser still shows at ease.
const MAX_ROWS: usize = 20_000;

/// Points of the plot.
const MAX_POINTS: usize = 2_000;

/// Places that are named of a value.
const N_PLACES: usize = 12;

impl Explanation {
    /// One page that needs nothing else. All values are in its table, or those that [`Self::with_value`] asks for.
    pub fn html(&self) -> String {
        let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        page += "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
                 script-src 'unsafe-inline'\">\n";
        page += "<meta name=\"viewport\" content=\"width=device-width\">\n";
        let name = escaped(&self.name);
        _ = write!(page, "<title>{name}: what is shared, and why</title>\n<style>\n{}</style></head>\n<body>\n", STYLE);
        _ = writeln!(page, "<h1>{name}</h1>\n<dl id=\"totals\">");
        for line in self.totals.to_string().lines() {
            let (head, text) = line.trim().split_once("  ").unwrap_or((line, ""));
            _ = writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(head), escaped(text.trim()));
        }
        page += "</dl>\n";
        self.plot(&mut page);
        page += "<main>\n<section aria-labelledby=\"listing-head\"><h2 id=\"listing-head\">Instructions</h2>\n\
                 <p class=\"hint\">Point at an instruction to see what it copies and who made that. Keys: arrows move, \
                 Enter goes to the maker, Backspace back.</p>\n";
        note(&mut page, self.rows.len(), "instructions");
        page += "<ol id=\"listing\" aria-label=\"Instructions\">\n";
        for (at, row) in self.rows.iter().take(MAX_ROWS).enumerate() {
            row.html(at, self.totals.max_stack, &mut page);
        }
        page += "</ol></section>\n";
        self.table(&mut page);
        page += "</main>\n<p id=\"about\" role=\"status\" aria-live=\"polite\">Nothing is pointed at.</p>\n";
        _ = write!(page, "<script>\n{SCRIPT}</script>\n</body></html>\n");
        page
    }

    /// The stack's height over the instructions; of many instructions, the greatest of each group.
    fn plot(&self, page: &mut String) {
        let group = self.rows.len().div_ceil(MAX_POINTS).max(1);
        let heights: Vec<usize> =
            self.rows.chunks(group).map(|rows| rows.iter().map(|row| row.depth).max().unwrap_or_default()).collect();
        let max = self.totals.max_stack.max(1);
        let points: Vec<String> =
            heights.iter().enumerate().map(|(at, height)| format!("{at},{}", max as usize - height)).collect();
        // The line has a width, for which there is room above and below.
        let pad = max / 20 + 1;
        let height = max + 2 * pad;
        let (width, top) = (heights.len().max(2) - 1, self.rows.get(self.totals.max_row).map_or(0, |row| row.offset));
        _ = writeln!(
            page,
            "<figure><figcaption>Height of the stack: at most {max}, first at byte {top}. Click to go there.\
             </figcaption>\n<svg id=\"plot\" viewBox=\"0 -{pad} {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"Height of the stack over the instructions\" data-group=\"{group}\">\
             <polyline points=\"{}\"/><line id=\"here\" x1=\"0\" x2=\"0\" y1=\"0\" y2=\"{max}\"/></svg></figure>",
            points.join(" ")
        );
    }

    fn table(&self, page: &mut String) {
        let shown: Vec<usize> = if self.filter.is_some() { self.subjects() } else { (0..self.values.len()).collect() };
        *page += "<section aria-labelledby=\"values-head\"><h2 id=\"values-head\">Values</h2>\n";
        let limit = self.top.unwrap_or(MAX_ROWS).min(MAX_ROWS);
        if limit < shown.len() {
            _ = writeln!(page, "<p class=\"note\">{limit} of {} values are shown.</p>", shown.len());
        }
        *page += "<p><label>Search <input id=\"search\" type=\"search\" placeholder=\"text, function, decision\"></label> \
                  <label><input id=\"subjects\" type=\"checkbox\"> only shared, or shareable and not</label> \
                  <output id=\"n\"></output></p>\n<table id=\"values\"><thead><tr>";
        let columns = [("id", "id"), ("type", "type"), ("value", "value"), ("uses", "uses"), ("decided", "decided")];
        for (key, head) in
            columns.into_iter().chain([("waits", "waits in"), ("saved", "saved"), ("why", "why, and for whom")])
        {
            _ = write!(page, "<th scope=\"col\" data-key=\"{key}\"><button type=\"button\">{head}</button></th>");
        }
        *page += "</tr></thead>\n<tbody>\n";
        let mut n_left = MAX_PLACES;
        for at in shown.into_iter().take(limit) {
            let places = self.places(at, &mut n_left);
            self.values[at].html(at, &self.named(&places, N_PLACES), &self.values[at].objects(&places), page);
        }
        *page += "</tbody></table></section>\n";
    }
}

impl Row {
    fn html(&self, at: usize, max: u32, page: &mut String) {
        _ = write!(page, "<li class=\"row\" id=\"r{at}\" tabindex=\"{}\"", if at == 0 { 0 } else { -1 });
        if !self.copies.is_empty() {
            let copied = |copied: &super::Copied| match copied.value {
                Some(value) => format!("{}:{value}", copied.row),
                None => format!("{}:", copied.row),
            };
            let copies: Vec<String> = self.copies.iter().map(copied).collect();
            _ = write!(page, " data-copies=\"{}\"", copies.join(" "));
        }
        let share = 100.0 * self.depth as f64 / f64::from(max.max(1));
        _ = writeln!(
            page,
            "><span class=\"at\">{}</span> <span class=\"op\">{}</span> <span class=\"arg\">{}</span> \
             <span class=\"depth\" style=\"--h:{share:.0}%\">{}</span> <span class=\"val\">{}</span></li>",
            self.offset,
            escaped(self.mnemonic),
            escaped(&self.operand),
            self.depth,
            escaped(&self.value)
        );
    }
}

impl Explained {
    fn html(&self, at: usize, places: &str, objects: &str, page: &mut String) {
        let kind = if self.interned == Some(true) { "interned str" } else { self.kind };
        let n_uses = self.n_uses;
        let waits = self.waits.map(|waits| waits.to_string()).unwrap_or_default();
        let id = match self.row.filter(|row| *row < MAX_ROWS) {
            Some(row) => format!("<a href=\"#r{row}\" title=\"to the instruction that made it\">{}</a>", self.id),
            None => self.id.clone(),
        };
        _ = write!(
            page,
            "<tr id=\"v{at}\" data-subject=\"{}\"><td class=\"id\">{id}</td><td class=\"type\">{kind}</td>\
             <td class=\"value\"><code>{}</code></td><td class=\"uses\">{n_uses}</td><td class=\"decided\">{}</td>\
             <td class=\"waits\">{waits}</td><td class=\"saved\">{}</td><td class=\"why\">",
            u8::from(self.is_subject()),
            escaped(&self.value),
            self.decided(),
            self.saved.map(|saved| saved.to_string()).unwrap_or_default()
        );
        for apart in &self.apart {
            _ = write!(page, "<strong>{}</strong> ", escaped(apart));
        }
        _ = writeln!(
            page,
            "{}<div class=\"places\">{}: {}</div></td></tr>",
            escaped(&self.why),
            escaped(objects),
            escaped(places)
        );
    }
}

fn note(page: &mut String, n: usize, what: &str) {
    if n > MAX_ROWS {
        _ = writeln!(page, "<p class=\"note\">{MAX_ROWS} of {n} {what} are shown.</p>");
    }
}

/// Text as it stands in an element or a quoted attribute. Control characters, which no page may hold, are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn text_cannot_leave_its_element_or_attribute() {
        assert_eq!(escaped("<a b='\"'>&\u{1}"), "&lt;a b=&#39;&quot;&#39;&gt;&amp;\u{fffd}");
    }
}
