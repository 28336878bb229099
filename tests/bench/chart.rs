//! The chart for the README: a panel of bars for each figure that is worth one,
//! two panels in a row. Its text is still of 10 pixels and more where it is shown
//! four fifths as wide, and its ground is white in the dark too.

use crate::measure::Figure;
use crate::report::{Report, Spread, short};
use crate::server::{BARE_C, BEFORE};
use std::fmt::Write;

const PANEL: usize = 480;
const BAR: usize = 18;
/// Where the bars begin, and how long the longest is.
const LEFT: f64 = 130.0;
const LONGEST: f64 = 235.0;

impl Report {
    pub fn svg(&self) -> String {
        let in_chart = |figure: &&Figure| figure.in_chart && !self.rows(figure).is_empty();
        let panels: Vec<&Figure> = self.figures.iter().filter(in_chart).collect();
        let (mut body, mut y) = (String::new(), 56);
        for row in panels.chunks(2) {
            for (i, figure) in row.iter().enumerate() {
                let _ = writeln!(body, "<g transform=\"translate({},{y})\">", i * PANEL);
                self.panel(&mut body, figure);
                body += "</g>\n";
            }
            let bars = row.iter().map(|figure| self.rows(figure).len()).max().unwrap_or(0);
            y += bars * BAR + 58;
        }
        let width = 2 * PANEL;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" \
             width=\"{width}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#24292f\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"12\" y=\"22\" font-weight=\"bold\">{}</text>\n\
             <text x=\"12\" y=\"42\">Bars: median of the rounds; lines: least to most; in \
             brackets: median of the rounds' ratios to bare C. make bench</text>\n{body}</svg>\n",
            escape(&self.title())
        )
    }

    /// The servers that have the figure.
    fn rows(&self, figure: &Figure) -> Vec<(&String, Spread)> {
        self.servers
            .iter()
            .filter_map(|server| Some((server, self.spread(&figure.key, server)?)))
            .collect()
    }

    fn panel(&self, out: &mut String, figure: &Figure) {
        let better = if figure.more_is_better { "more is better" } else { "less is better" };
        let _ = writeln!(
            out,
            "<text x=\"12\" y=\"16\" font-weight=\"bold\">{}</text>\
             <text x=\"12\" y=\"33\">{} ({better})</text>",
            escape(figure.table),
            escape(&figure.heading)
        );
        let rows = self.rows(figure);
        let most = rows.iter().map(|row| row.1.most).fold(f64::MIN_POSITIVE, f64::max);
        for (i, (server, spread)) in rows.iter().enumerate() {
            let at = |value: f64| LEFT + LONGEST * value.max(0.0) / most;
            let ratio = self.ratios(&figure.key, server, BARE_C);
            let ratio = ratio.map_or(String::new(), |ratio| format!(" ({})", short(ratio.median)));
            let (y, middle, line) = (40 + i * BAR, 46 + i * BAR, 52 + i * BAR);
            let (end, least, top) = (at(spread.median), at(spread.least), at(spread.most));
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{line}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"{}\"/>\
                 <path d=\"M{least:.1} {middle}H{top:.1}\" stroke=\"#24292f\"/>\
                 <text x=\"{:.1}\" y=\"{line}\">{}{ratio}</text>",
                LEFT - 6.0,
                escape(server),
                end - LEFT,
                colour(server),
                top + 5.0,
                short(spread.median)
            );
        }
    }
}

fn colour(server: &str) -> &'static str {
    match server {
        BARE_C => "#57606a",
        BEFORE => "#8250df",
        "C" | "C, musl" => "#bf8700",
        _ if server.starts_with("forkline") => "#0969da",
        _ => "#afb8c1",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
