//! `cargo run --release --example pretokenize -- records.jsonl --output tokens --rank 0 --splits 4`
//!
//! Turns records of conversations and images into tokens, once, for training. Each rank is a process of its own, on any
//! machine; a call goes on where an earlier one ended. With `--join` the ranks' indexes become one.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lumina_examples::{ComputeArgs, small_model};
use lumina_tokenizer::UniRep;
use lumina_train::data::{CropChoice, PretokenizeEvent, PretokenizeOptions, Pretokenizer, Records, concatenate};
use lumina_vq::ImageTokenizer;

/// Turns records into token shards.
#[derive(Parser)]
struct Args {
    /// A JSON list or JSONL of `{"conversations":[{"from":"human","value":…},{"from":"gpt","value":…}],"image":[…]}`
    records: PathBuf,
    /// The folder of the shards
    #[arg(short, long)]
    output: PathBuf,
    /// Folder of `tokenizer.json` [default: that of the small model]
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// Folder of `vqgan.ckpt` and `vqgan.yaml` [default: that of the small model]
    #[arg(long)]
    image_tokenizer: Option<PathBuf>,
    /// Pictures are brought to about this many pixels a side: 512, 768, 1024
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// Which share of the records this is
    #[arg(long, default_value_t = 0)]
    rank: u64,
    /// How many shares there are
    #[arg(long, default_value_t = 1)]
    splits: u64,
    /// Crops are drawn from this seed and the record
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Afterwards join the indexes of all ranks into record.json
    #[arg(long)]
    join: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let images = ImageTokenizer::open(args.image_tokenizer.unwrap_or_else(small_model), &args.compute.open()?)?;
    let unirep = UniRep::open(args.tokenizer.unwrap_or_else(small_model))?;
    let options = PretokenizeOptions {
        rank: args.rank,
        splits: args.splits,
        crop: CropChoice::Random { seed: args.seed, best_of: 1 },
        ..PretokenizeOptions::new(args.target_size)
    };
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} records, {per_sec}, {eta} left {msg}")?;
    let bar = ProgressBar::no_length().with_style(style);
    let done =
        Pretokenizer::new(&images, &unirep, options)?.run(&Records::open(&args.records)?, &args.output, |event| {
            match event {
                PretokenizeEvent::Skipped { index, reason } => {
                    bar.println(format!("record {index} was skipped: {reason}"))
                }
                PretokenizeEvent::Progress(progress) => {
                    if bar.length().is_none() {
                        bar.set_length(progress.total);
                        // What earlier calls have done does not count as speed.
                        bar.reset_eta();
                    }
                    bar.set_position(progress.done);
                    bar.set_message(format!("{} tokens", progress.tokens));
                }
            }
        })?;
    bar.finish_and_clear();
    println!("{} records of rank {}, {} skipped, {} tokens", done.done, args.rank, done.skipped, done.tokens);
    if args.join {
        let joined = concatenate(&args.output)?;
        println!("wrote {}: {} items", joined.index.display(), joined.items);
    }
    Ok(())
}
