//! Charts as SVG: lines, points and bars over two axes. Colours come from the page, so that they
//! follow light and dark; every point says its value when it is pointed at.

use std::fmt::Write as _;

use super::page::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// Height of a line of text.
const LINE: f64 = 14.0;

/// Width of a letter, about.
const LETTER: f64 = 6.4;

/// Half lines by which a name may stand away from its point.
const AWAY: i32 = 4;

/// A chart.
pub(super) struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

/// An axis.
pub(super) struct Axis {
    label: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
    /// Linear without numbers: places in an order.
    Order,
}

impl Axis {
    pub(super) fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), kind: Kind::Linear }
    }

    pub(super) fn log(label: &str) -> Self {
        Self { label: label.to_owned(), kind: Kind::Log }
    }

    pub(super) fn order(label: &str) -> Self {
        Self { label: label.to_owned(), kind: Kind::Order }
    }
}

/// What is drawn.
struct Series {
    /// Named in the legend, unless empty.
    name: String,
    /// 1 to 6: a colour of the page.
    colour: usize,
    mark: Mark,
    points: Vec<Point>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Line,
    Dashed,
    Dots,
    /// From 0, green upwards and red downwards.
    Bars,
}

/// A point, with a name if it is worth one.
#[derive(Clone)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) label: Option<String>,
    /// Drawn with a ring.
    pub(super) chosen: bool,
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, label: None, chosen: false }
    }
}

/// From where to where an axis goes, and where it has numbers.
struct Range {
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Chart {
    pub(super) fn new(title: &str, x: Axis, y: Axis) -> Self {
        Self { title: title.to_owned(), x, y, series: Vec::new() }
    }

    fn with(
        mut self,
        name: &str,
        colour: usize,
        mark: Mark,
        points: impl IntoIterator<Item = Point>,
    ) -> Self {
        let log = self.x.kind == Kind::Log;
        let usable =
            |point: &Point| point.x.is_finite() && point.y.is_finite() && (!log || point.x > 0.0);
        let points = points.into_iter().filter(usable).collect();
        self.series.push(Series { name: name.to_owned(), colour, mark, points });
        self
    }

    pub(super) fn line<P: Into<Point>>(
        self,
        name: &str,
        colour: usize,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        self.with(name, colour, Mark::Line, points.into_iter().map(Into::into))
    }

    pub(super) fn dashed(
        self,
        name: &str,
        colour: usize,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        self.with(name, colour, Mark::Dashed, points.into_iter().map(Into::into))
    }

    pub(super) fn dots(
        self,
        name: &str,
        colour: usize,
        points: impl IntoIterator<Item = Point>,
    ) -> Self {
        self.with(name, colour, Mark::Dots, points)
    }

    pub(super) fn bars(self, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.with("", 3, Mark::Bars, points.into_iter().map(Into::into))
    }

    /// The figure; a sentence where there is nothing to draw.
    pub(super) fn html(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let mut html = format!("<figure><figcaption>{}</figcaption>\n", escape(&self.title));
        if points().next().is_none() {
            html += "<p class=\"soft\">nothing to show</p></figure>\n";
            return html;
        }
        let bars = self.series.iter().any(|series| series.mark == Mark::Bars);
        let x = range(points().map(|point| point.x), self.x.kind, bars);
        let with_zero = bars.then_some(0.0);
        let y = range(points().map(|point| point.y).chain(with_zero), self.y.kind, false);
        let _ = writeln!(
            html,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        ); // a string takes all
        self.axes(&mut html, &x, &y);
        for series in &self.series {
            draw(&mut html, series, &x, &y);
        }
        self.labels(&mut html, &x, &y);
        html += "</svg>\n";
        let named: Vec<&Series> =
            self.series.iter().filter(|series| !series.name.is_empty()).collect();
        if !named.is_empty() {
            html += "<ul class=\"legend\">";
            for series in named {
                let Series { name, colour, .. } = series;
                let _ = write!(html, "<li class=\"c{colour}\">{}</li>", escape(name));
            }
            html += "</ul>\n";
        }
        html += "</figure>\n";
        html
    }

    fn axes(&self, html: &mut String, x: &Range, y: &Range) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &y.ticks {
            let at = vertical(y, *tick);
            let _ = writeln!(
                html,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                number(*tick, &y.ticks)
            );
        }
        if self.x.kind != Kind::Order {
            for tick in &x.ticks {
                let at = horizontal(x, *tick);
                let _ = writeln!(
                    html,
                    "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" \
                     y2=\"{}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    bottom + 4.0,
                    bottom + 18.0,
                    if x.log {
                        format!("{}", (tick * 1e6).round() / 1e6)
                    } else {
                        number(*tick, &x.ticks)
                    }
                );
            }
        }
        let _ = writeln!(
            html,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(13 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escape(&self.x.label),
            f64::midpoint(TOP, bottom),
            escape(&self.y.label)
        );
    }

    /// The points' names, each beside its point and not on another name. A name for which there is no
    /// room is told only where its point is pointed at.
    fn labels(&self, html: &mut String, x: &Range, y: &Range) {
        let mut taken: Vec<(f64, f64, f64)> = Vec::new(); // from, to, baseline
        let points = self.series.iter().flat_map(|series| &series.points);
        for point in points.filter(|point| point.label.is_some()) {
            let Some(label) = &point.label else { continue };
            let (at, height) = (horizontal(x, point.x), vertical(y, point.y));
            let width = label.chars().count() as f64 * LETTER;
            let to_the_left = at + 10.0 + width > WIDTH - RIGHT;
            let from = if to_the_left { (at - 10.0 - width).max(0.0) } else { at + 10.0 };
            let free = |baseline: f64| {
                baseline > TOP + 8.0
                    && baseline < HEIGHT - BOTTOM
                    && taken.iter().all(|(left, right, other)| {
                        *right < from || *left > from + width || (other - baseline).abs() >= LINE
                    })
            };
            let steps = (0..=AWAY).flat_map(|step| {
                let away = f64::from(step) * LINE / 2.0;
                [height + 4.0 + away, height + 4.0 - away]
            });
            let Some(baseline) = steps.into_iter().find(|step| free(*step)) else { continue };
            taken.push((from, from + width, baseline));
            let _ = writeln!(
                html,
                "<text class=\"label\" x=\"{from:.1}\" y=\"{baseline:.1}\">{}</text>",
                escape(label)
            );
        }
    }
}

fn draw(html: &mut String, series: &Series, x: &Range, y: &Range) {
    let Series { colour, mark, points, .. } = series;
    let place = |point: &Point| (horizontal(x, point.x), vertical(y, point.y));
    if matches!(mark, Mark::Line | Mark::Dashed) {
        let path: Vec<String> = points
            .iter()
            .map(|point| {
                let (x, y) = place(point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let dashed = if *mark == Mark::Dashed { " dashed" } else { "" };
        let _ = writeln!(
            html,
            "<polyline class=\"c{colour} line{dashed}\" points=\"{}\"/>",
            path.join(" ")
        );
    }
    let thick = (WIDTH - LEFT - RIGHT) / (points.len().max(1) as f64 + 1.0);
    for point in points {
        let (at, height) = place(point);
        let label = point.label.as_deref().map(|label| format!("{label}: ")).unwrap_or_default();
        let told = format!("{}{}, {}", escape(&label), short(point.x), short(point.y));
        let _ = match mark {
            Mark::Dashed => Ok(()),
            Mark::Line | Mark::Dots => writeln!(
                html,
                "<g class=\"c{colour}\"><circle class=\"dot\" cx=\"{at:.1}\" cy=\"{height:.1}\" \
                 r=\"{}\"><title>{told}</title></circle>{}</g>",
                if *mark == Mark::Dots { 5.0 } else { 3.0 },
                if point.chosen {
                    format!("<circle class=\"ring\" cx=\"{at:.1}\" cy=\"{height:.1}\" r=\"9\"/>")
                } else {
                    String::new()
                }
            ),
            Mark::Bars => {
                let zero = vertical(y, 0.0);
                let class = if point.y >= 0.0 { 3 } else { 5 };
                writeln!(
                    html,
                    "<rect class=\"c{class} dot\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.2}\" \
                     height=\"{:.1}\"><title>{told}</title></rect>",
                    at - thick * 0.45,
                    zero.min(height),
                    (thick * 0.9).max(0.5),
                    (zero - height).abs().max(0.5)
                )
            }
        };
    }
}

fn horizontal(range: &Range, value: f64) -> f64 {
    LEFT + share(range, value) * (WIDTH - LEFT - RIGHT)
}

fn vertical(range: &Range, value: f64) -> f64 {
    HEIGHT - BOTTOM - share(range, value) * (HEIGHT - TOP - BOTTOM)
}

fn share(range: &Range, value: f64) -> f64 {
    let of = |value: f64| if range.log { value.log10() } else { value };
    (of(value) - of(range.from)) / (of(range.to) - of(range.from))
}

/// An axis over these values with room at its ends and numbers at round places.
fn range(values: impl Iterator<Item = f64>, kind: Kind, tight: bool) -> Range {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value), high.max(value));
    }
    if kind == Kind::Log {
        let (from, to) =
            if low < high { (low / 1.25, high * 1.25) } else { (low / 2.0, low * 2.0) };
        let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
        let steps: &[f64] = if to / from > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let ticks = decades.flat_map(|decade| steps.iter().map(move |s| s * 10_f64.powi(decade)));
        let ticks = ticks.filter(|tick| (from..=to).contains(tick)).collect();
        return Range { from, to, log: true, ticks };
    }
    if low >= high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let room = if tight { 1.0 } else { (high - low) * 0.06 };
    let (from, to) = (low - room, high + room);
    let rough = (to - from) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(power * 10.0);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    // From whole numbers, so that no 0.30000000000000004 stands at a tick.
    let ticks = (first..=last).map(|at| at as f64 * step).collect();
    Range { from, to, log: false, ticks }
}

/// A tick's number, with as many places as its neighbours need.
fn number(value: f64, ticks: &[f64]) -> String {
    let step = ticks.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    let places = if step.is_finite() && step < 1.0 {
        // 0.25 needs one place more than its size says.
        let places = (-step.log10()).ceil() as usize;
        let scaled = step * 10_f64.powi(places as i32);
        if (scaled - scaled.round()).abs() > 1e-6 { places + 1 } else { places }
    } else {
        0
    };
    let text = format!("{value:.places$}");
    if text.starts_with('-') && text.trim_start_matches(['-', '0', '.']).is_empty() {
        text[1..].to_owned()
    } else {
        text
    }
}

/// A value as it is told when pointed at.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        let axis = range([0.6066, 0.7512].into_iter(), Kind::Linear, false);
        assert!(axis.ticks.len() >= 4, "{:?}", axis.ticks);
        assert!(axis.ticks.iter().all(|tick| (axis.from..=axis.to).contains(tick)));
        let told: Vec<String> = axis.ticks.iter().map(|tick| number(*tick, &axis.ticks)).collect();
        assert!(told.contains(&"0.65".to_owned()) && told.contains(&"0.70".to_owned()), "{told:?}");
        let axis = range([0.1, 162.0].into_iter(), Kind::Log, false);
        assert_eq!(axis.ticks.len(), 4, "{:?}", axis.ticks); // 0.1, 1, 10, 100
        assert_eq!(number(-0.0_f64, &[-1.0, 0.0, 1.0]), "0");
    }

    #[test]
    fn one_point_and_none_can_be_drawn() {
        let chart = || Chart::new("t", Axis::log("x"), Axis::linear("y"));
        assert!(chart().html().contains("nothing to show"));
        let one = chart().line("one", 1, [(5.0, 0.5)]).html();
        assert!(one.contains("<circle") && !one.contains("NaN") && !one.contains("inf"), "{one}");
        // What a logarithm does not take is left out.
        assert!(chart().line("zero", 1, [(0.0, 0.5)]).html().contains("nothing to show"));
    }

    #[test]
    fn names_do_not_cover_each_other() {
        let point = |y: f64| Point { x: 1.0, y, label: Some("name".to_owned()), chosen: false };
        let chart = Chart::new("t", Axis::linear("x"), Axis::linear("y"));
        let html = chart.dots("", 1, [point(0.5), point(0.5), point(0.501)]).html();
        let baselines: Vec<f64> = html
            .lines()
            .filter(|line| line.contains("class=\"label\""))
            .map(|line| {
                let rest = &line[line.find(" y=\"").unwrap() + 4..];
                rest[..rest.find('"').unwrap()].parse().unwrap()
            })
            .collect();
        assert_eq!(baselines.len(), 3);
        for (place, one) in baselines.iter().enumerate() {
            assert!(baselines[..place].iter().all(|other| (one - other).abs() >= LINE - 0.2));
        }
    }
}
