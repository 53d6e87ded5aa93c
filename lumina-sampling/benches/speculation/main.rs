//! Tokens a pass: a simulation, on a synthetic process in the place of a model.
//!
//! `cargo bench -p lumina-sampling --bench speculation`, and after `--` the number of images and of their rows, 2 and
//! 24 without, and `diffuse` for another process.
//!
//! The process is calibrated: by the rule of SJD it gives the tokens a pass that are published for Lumina-mGPT 7B, 2.3
//! with hardly more at 64 than at 16 (arXiv 2410.01699), and by that of MC-SJD 4.2 at 64 (arXiv 2510.24211). What the
//! speculator of this crate gives on it is no measurement of a model. On the diffuse process the token before counts
//! less, and those before it more: it shows what depends on that.
#![allow(missing_docs, clippy::print_stdout, reason = "a benchmark")]

mod ours;
mod process;
mod published;

use std::time::Duration;

use ours::Method;
use process::{CALIBRATED, DIFFUSE, Process};
use published::Redraw;

/// As in an image of 768 pixels.
const COLUMNS: usize = 48;
/// Tokens that a pass runs: the pending one and the drafts.
const WINDOWS: [usize; 5] = [8, 16, 32, 64, 128];

/// What generating images took.
#[derive(Debug, Clone, Default)]
struct Run {
    tokens: usize,
    passes: usize,
    /// The image, a character a token: `#` where a pass ended, `·` for a draft that was right.
    picture: String,
    /// The host's time for each pass: to draft, and to draw and verify.
    times: [Vec<Duration>; 2],
}

impl Run {
    fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.passes += other.passes;
        self.picture = other.picture;
        for (times, others) in self.times.iter_mut().zip(other.times) {
            times.extend(others);
        }
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let (images, rows) = (numbers.next().unwrap_or(2), numbers.next().unwrap_or(24));
    let is_diffuse = std::env::args().any(|argument| argument == "diffuse");
    let settings = if is_diffuse { DIFFUSE } else { CALIBRATED };
    let processes: Vec<_> = (0..images as u32).map(|image| Process::new(image, rows, COLUMNS, settings)).collect();
    let run = |name: &str, run: &dyn Fn(&Process, usize, u64) -> Run| {
        let sums = WINDOWS.map(|window| {
            let mut sum = Run::default();
            for (seed, process) in (1..).zip(&processes) {
                sum.add(run(process, window, seed));
            }
            sum
        });
        let cells = sums.each_ref().map(|sum| format!("{:.2}", sum.tokens as f64 / sum.passes as f64));
        println!("| {name} | {} |", cells.join(" | "));
        (name.to_owned(), sums)
    };

    println!("Tokens a pass: {images} images of {rows} rows of {COLUMNS} tokens, top-k 2000 of 8192\n");
    println!("| tokens that a pass runs | {} |", WINDOWS.map(|window| window.to_string()).join(" | "));
    println!("| --- | {} |", WINDOWS.map(|_| "---").join(" | "));
    for (name, redraw) in [("SJD's rule", Redraw::Independent), ("MC-SJD's rule", Redraw::MaximalCoupling)] {
        run(name, &|process, window, seed| published::run(process, window, redraw, seed));
    }
    let vocabulary = process::vocabulary();
    let ours = Method::ALL
        .map(|method| run(method.name, &|process, window, seed| ours::run(process, &vocabulary, window, method, seed)));

    let chain = &ours[3];
    println!(
        "\nAn image, {}, {} tokens a pass: # is the last token of a pass, · a draft that was right\n",
        chain.0, WINDOWS[3]
    );
    chain.1[3].picture.lines().take(rows).for_each(|line| println!("{line}"));

    println!("\nMicroseconds of the host a pass, medians: to draft + to draw and verify\n");
    println!("| tokens that a pass runs | {} |", WINDOWS.map(|window| window.to_string()).join(" | "));
    println!("| --- | {} |", WINDOWS.map(|_| "---").join(" | "));
    for (name, sums) in ours {
        let cells = sums.map(|sum| {
            let [draft, verify] = sum.times.map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2].as_secs_f64() * 1e6
            });
            format!("{draft:.0} + {verify:.0}")
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}
