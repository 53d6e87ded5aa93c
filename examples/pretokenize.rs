//! `cargo run --release --example pretokenize -- records.jsonl --output tokens --rank 0 --ranks 4`
//!
//! Turns records of conversations and images into tokens, once, for training. Each rank is a process of its own, on any
//! machine; a call continues where an earlier one ended. With `--join` the ranks' indexes become one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lumina_examples::{RankArgs, RecordProgress, TokenizerArgs, read_and_skipped, say};
use lumina_train::data::{CropChoice, PretokenizeOptions, Pretokenizer, Records, concatenate};

/// Converts records of conversations and images to tokens, once, for training.
///
/// Large data are converted by several processes, each with its --rank of --ranks, or started by mpirun, srun, a
/// Slurm array or a Kubernetes indexed job; when all are done, a call with --join joins them. The same command
/// continues where an earlier one ended.
#[derive(Parser)]
struct Args {
    /// A JSON list, or a file with a record a line
    ///
    /// A record is {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}], "image": [files]}.
    /// <|image|> in a value is the place of an image.
    records: PathBuf,
    /// The folder to write the tokens to
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Resize images to about so many pixels a side: what the model is trained for, such as 512, 768 or 1024
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    target_size: u32,
    /// Which part of an image is kept, where it must be cropped, is drawn with this seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Afterwards join the indexes of all ranks into record.json
    #[arg(long)]
    join: bool,
    /// Fail if a record was skipped
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    rank: RankArgs,
    #[command(flatten)]
    tokenizers: TokenizerArgs,
}

fn main() -> ExitCode {
    lumina_examples::main(run)
}

fn run(args: Args) -> lumina_examples::Result<()> {
    let (rank, seed) = (args.rank.get()?, args.seed);
    let (images, unirep) = args.tokenizers.open()?;
    let crop = CropChoice::Random { seed, best_of: 1 };
    let (rank, splits) = (rank.rank(), rank.of());
    let options = PretokenizeOptions { rank, splits, crop, ..PretokenizeOptions::new(args.target_size) };
    let (records, progress) = (Records::open(&args.records)?, RecordProgress::new());
    let pretokenizer = Pretokenizer::new(&images, &unirep, options)?;
    let done = pretokenizer.run(&records, &args.output, |event| progress.show(&event))?;
    progress.finish();
    say!("{}", read_and_skipped(&done, &pretokenizer.skipped(&args.output)?, args.strict)?)?;
    if args.join {
        let joined = concatenate(&args.output)?;
        say!("wrote {}: {} items", joined.index.display(), joined.items)?;
    }
    Ok(())
}
