//! `cargo run --release --example pretokenize -- records.jsonl --output tokens --rank 0 --splits 4`
//!
//! Turns records of conversations and images into tokens, once, for training. Each rank is a process of its own, on any
//! machine; a call continues where an earlier one ended. With `--join` the ranks' indexes become one.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;

use clap::Parser;
use lumina_examples::{RecordProgress, TokenizerArgs, read_and_skipped};
use lumina_train::data::{CropChoice, PretokenizeOptions, Pretokenizer, Records, concatenate};

/// Turns records into token shards.
#[derive(Parser)]
struct Args {
    /// A JSON list or JSONL of `{"conversations":[{"from":"human","value":…},{"from":"gpt","value":…}],"image":[…]}`
    records: PathBuf,
    /// The folder of the shards
    #[arg(short, long)]
    output: PathBuf,
    /// Images are brought to about this many pixels a side: 512, 768, 1024
    #[arg(long, default_value_t = 96)]
    target_size: u32,
    /// Which part of the records this is
    #[arg(long, default_value_t = 0)]
    rank: u64,
    /// How many parts there are
    #[arg(long, default_value_t = 1)]
    splits: u64,
    /// Crops are drawn from this seed and the record
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Afterwards join the indexes of all ranks into record.json
    #[arg(long)]
    join: bool,
    /// Fail if a record was skipped
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    tokenizers: TokenizerArgs,
}

fn main() -> lumina_examples::Result<()> {
    let args = Args::parse();
    let (rank, splits, seed) = (args.rank, args.splits, args.seed);
    let (images, unirep) = args.tokenizers.open()?;
    let crop = CropChoice::Random { seed, best_of: 1 };
    let options = PretokenizeOptions { rank, splits, crop, ..PretokenizeOptions::new(args.target_size) };
    let (records, progress) = (Records::open(&args.records)?, RecordProgress::new());
    let pretokenizer = Pretokenizer::new(&images, &unirep, options)?;
    let done = pretokenizer.run(&records, &args.output, |event| progress.show(&event))?;
    progress.finish();
    println!("{}", read_and_skipped(&done, &pretokenizer.skipped(&args.output)?, args.strict)?);
    if args.join {
        let joined = concatenate(&args.output)?;
        println!("wrote {}: {} items", joined.index.display(), joined.items);
    }
    Ok(())
}
