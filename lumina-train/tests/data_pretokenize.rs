//! Pre-tokenisation as a whole: the files, ending and continuing a run, and reading them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's panic is its failure, in helpers too")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::{Rgb, RgbImage};
use lumina_mgpt::Compute;
use lumina_testing::{lcg, part};
use lumina_tokenizer::{Record, RecordTurn, UniRep};
use lumina_train::data::{
    BatchSampler, CropChoice, Dataset, ItemOrder, PretokenizeEvent, PretokenizeOptions, PretokenizeProgress,
    Pretokenizer, Records, SamplerOptions, TokenItems, concatenate,
};
use lumina_train::{Error, Result};
use lumina_vq::ImageTokenizer;
use lumina_vq::preprocess::{InputImage, Preprocessor};

struct Tokenizers {
    images: ImageTokenizer,
    unirep: UniRep,
}

impl Tokenizers {
    fn open() -> Self {
        let images = ImageTokenizer::open(part("vq"), &Compute::cpu()).unwrap();
        Self { images, unirep: UniRep::open(part("tokenizer")).unwrap() }
    }

    fn run(&self, records: &Records<'_>, folder: &Path, options: PretokenizeOptions) -> Result<PretokenizeProgress> {
        Pretokenizer::new(&self.images, &self.unirep, options)?.run(records, folder, |_| ())
    }
}

fn options() -> PretokenizeOptions {
    PretokenizeOptions { window: 4, images_per_pass: 3, ..PretokenizeOptions::new(64) }
}

fn random_image(index: usize) -> RgbImage {
    let mut noise = lcg(index as u32);
    let mut side = || 32 + (noise.next().unwrap() >> 16) % 65;
    let (width, height) = (side(), side());
    let mut noise = lcg(index as u32 + 1000);
    RgbImage::from_fn(width, height, |x, y| Rgb([(4 * x) as u8, (4 * y) as u8, (noise.next().unwrap() >> 24) as u8]))
}

fn turns(texts: &[&str]) -> Vec<RecordTurn> {
    let turn = |(index, text): (usize, &&str)| RecordTurn {
        from: if index % 2 == 0 { "human" } else { "gpt" }.to_owned(),
        value: Some((*text).to_owned()),
    };
    texts.iter().enumerate().map(turn).collect()
}

/// Records of texts alone, some of them bad.
fn text_record(index: usize) -> (Record, Vec<InputImage>) {
    let answer = format!("It is {index}.").repeat(index % 3 + 1);
    let texts = if index % 7 == 3 { vec!["What?"] } else { vec!["What?", &answer] };
    (Record { conversations: turns(&texts), image: Vec::new() }, Vec::new())
}

/// Records with images, some of them bad.
fn image_record(index: usize) -> (Record, Vec<InputImage>) {
    let n_images = index % 3;
    let images = (0..n_images).map(|n| random_image(10 * index + n).into()).collect();
    let answer = "<|image|>".repeat(n_images + usize::from(index % 8 == 5));
    (Record { conversations: turns(&["Draw.", &answer]), image: Vec::new() }, images)
}

/// The files of a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|file| (file.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&file).unwrap())).collect()
}

fn assert_same(found: &Path, expected: &BTreeMap<PathBuf, Vec<u8>>, when: &str) {
    let found = files(found);
    assert!(found.keys().eq(expected.keys()), "{when}: {:?}", found.keys());
    for (file, bytes) in &found {
        assert!(*bytes == expected[file], "{when}: {} differs", file.display());
    }
}

#[test]
fn items_are_what_the_tokenizers_make_of_records() {
    let tokenizers = Tokenizers::open();
    let folder = tempfile::tempdir().unwrap();
    let records = Records::made(13, image_record);
    let centre = PretokenizeOptions { crop: CropChoice::Center, images_per_pass: 1, ..options() };

    let mut events = Vec::new();
    let pretokenizer = Pretokenizer::new(&tokenizers.images, &tokenizers.unirep, centre).unwrap();
    let done = pretokenizer
        .run(&records, folder.path(), |event| match event {
            PretokenizeEvent::Progress(progress) => events.push(progress.done.to_string()),
            PretokenizeEvent::Skipped { index, reason } => events.push(format!("{index}: {reason}")),
        })
        .unwrap();
    assert_eq!((done.done, done.total, done.skipped), (13, 13, 1));
    let bad = events.iter().find(|event| event.starts_with("5: ")).unwrap().clone();
    assert!(bad.contains("<|image|>"), "{bad}");
    let skipped = pretokenizer.skipped(folder.path()).unwrap();
    assert_eq!(
        skipped.iter().map(|skipped| format!("{}: {}", skipped.index, skipped.reason)).collect::<Vec<_>>(),
        [&*bad]
    );
    events.retain(|event| *event != bad);
    assert_eq!(events, ["0", "4", "8", "12", "13"]);

    let items = TokenItems::open(folder.path().join("0-of-1-record.jsonl")).unwrap();
    let preprocessor = Preprocessor::new(64).unwrap();
    let mut tokens = 0;
    for (place, index) in (0..13).filter(|&index| index != 5).enumerate() {
        let (record, images) = image_record(index);
        let codes = |image| tokenizers.images.encode(&preprocessor.prepare(image).unwrap()).unwrap();
        let codes: Vec<_> = images.iter().map(codes).collect();
        let expected = tokenizers.unirep.encode_record(&record, &codes).unwrap();
        let item = items.get(place).unwrap();
        assert_eq!((item.id, &item.tokens, &item.labels), (index as u64, &expected.tokens, &expected.labels));
        tokens += expected.tokens.len() as u64;
    }
    assert_eq!(done.tokens, tokens);

    let skipped = std::fs::read_to_string(folder.path().join("0-of-1-skipped.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(&skipped).unwrap();
    assert_eq!((&line["index"], line["reason"].as_str()), (&5.into(), bad.strip_prefix("5: ")));
}

#[test]
fn ranks_together_are_one_run_whatever_the_order() {
    let tokenizers = Tokenizers::open();
    let records = Records::made(14, image_record);
    // One image a pass: sums in another batch may be rounded differently.
    let alone = |rank, splits| PretokenizeOptions { rank, splits, images_per_pass: 1, ..options() };
    let whole = tempfile::tempdir().unwrap();
    tokenizers.run(&records, whole.path(), alone(0, 1)).unwrap();
    let shared = tempfile::tempdir().unwrap();
    for rank in [4, 1, 0, 3] {
        tokenizers.run(&records, shared.path(), alone(rank, 5)).unwrap();
    }
    assert!(matches!(concatenate(shared.path()), Err(Error::MissingRanks { missing, .. }) if missing == [2]));
    tokenizers.run(&records, shared.path(), alone(2, 5)).unwrap();
    let joined = concatenate(shared.path()).unwrap();

    let (one, all) = (TokenItems::open(whole.path().join("0-of-1-record.jsonl")).unwrap(), joined.index);
    let all = TokenItems::open(all).unwrap();
    assert_eq!((one.len(), all.len()), (12, 12));
    for place in 0..one.len() {
        assert_eq!(one.get(place).unwrap(), all.get(place).unwrap());
    }
    assert!(all.get(12).is_err());

    let config = shared.path().join("data.yaml");
    std::fs::write(&config, "META:\n  - path: record.json\n    type: image\n  - path: 0-of-5-record.jsonl\n").unwrap();
    let dataset = Dataset::open(&config).unwrap();
    assert_eq!(dataset.get(12).unwrap(), dataset.get(0).unwrap());
    assert!(dataset.get(dataset.len()).is_err());
    let order = ItemOrder::Shuffled { seed: 1 };
    let sampling = SamplerOptions { batch_size: 3, accumulation: 1, rank: 0, ranks: 1, order };
    let sampler = BatchSampler::new(dataset.groups(), sampling).unwrap();
    for indices in sampler.epoch(0) {
        let batch = dataset.batch(&indices, 20).unwrap();
        assert_eq!(batch.tokens.len(), 3);
        assert!(batch.tokens.iter().all(|row| row.len() <= 20));
    }
}

/// Cut after any byte of any file, and continued, the files are those of an undisturbed run.
/// Records that no rank has done are not left out without a word, and ranks of different runs are not mixed.
#[test]
fn unfinished_ranks_are_not_joined() {
    let tokenizers = Tokenizers::open();
    let records = Records::made(40, text_record);
    let of = |rank, splits| PretokenizeOptions { rank, splits, ..options() };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tokenizers.run(&records, folder, of(0, 2)).unwrap();
    // Ended after the first window of four.
    let stopped = Pretokenizer::new(&tokenizers.images, &tokenizers.unirep, of(1, 2)).unwrap();
    let mut windows = 0;
    let stop = |event: PretokenizeEvent<'_>| {
        windows += usize::from(matches!(event, PretokenizeEvent::Progress(_)));
        if windows > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    stopped.run(&records, folder, stop).unwrap();
    let error = concatenate(folder).unwrap_err();
    assert!(matches!(&error, Error::UnfinishedRanks { unfinished, .. } if unfinished == &[(1, 4, 20)]), "{error}");
    assert!(!folder.join("record.json").exists());
    tokenizers.run(&records, folder, of(1, 2)).unwrap();
    let joined = concatenate(folder).unwrap();
    let bad = (0..40).filter(|index| index % 7 == 3).count();
    assert_eq!((joined.items, joined.repeated), (40 - bad, 0));

    // Another run's rank among them.
    for name in ["1-of-2.tokens", "1-of-2-record.jsonl", "1-of-2-skipped.jsonl", "1-of-2-run.json"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    tokenizers.run(&Records::made(41, text_record), folder, of(1, 2)).unwrap();
    assert!(matches!(concatenate(folder), Err(Error::OtherRun { .. })));
    std::fs::write(folder.join("1-of-2-run.json"), "[]").unwrap();
    assert!(concatenate(folder).unwrap_err().to_string().contains("not the settings of a shard"));
}

#[test]
fn a_run_is_continued_from_wherever_its_files_end() {
    let tokenizers = Tokenizers::open();
    let records = Records::made(18, text_record);
    let folder = tempfile::tempdir().unwrap();
    let run = || tokenizers.run(&records, folder.path(), options());
    let done = run().unwrap();
    assert_eq!((done.done, done.skipped), (18, 3));
    let expected = files(folder.path());
    assert_eq!(run().unwrap(), done, "a finished run is not changed");
    assert_same(folder.path(), &expected, "after a second run");

    let growing: Vec<&PathBuf> = expected.keys().filter(|file| !file.ends_with("0-of-1-run.json")).collect();
    assert_eq!(growing.len(), 3);
    let cut = |file: &Path, length: usize| {
        std::fs::write(folder.path().join(file), &expected[file][..length]).unwrap();
    };
    for file in &growing {
        for length in (0..expected[*file].len()).step_by(23) {
            cut(file, length);
            assert_eq!(run().unwrap(), done);
            assert_same(folder.path(), &expected, &format!("{} cut at {length}", file.display()));
        }
    }
    let mut random = lcg(5);
    for round in 0..40 {
        for file in &growing {
            cut(file, random.next().unwrap() as usize % (expected[*file].len() + 1));
        }
        // What a power cut may leave after lines that were not flushed. Tokens are flushed before their lines are
        // written.
        if round % 3 == 0 {
            for file in growing.iter().filter(|file| !file.ends_with("0-of-1.tokens")) {
                let path = folder.path().join(file);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.resize(bytes.len() + 50, 0);
                std::fs::write(path, bytes).unwrap();
            }
        }
        assert_eq!(run().unwrap(), done);
        assert_same(folder.path(), &expected, &format!("round {round}"));
    }
}

/// Killed again and again (SIGKILL), and continued, the files are those of an undisturbed run.
#[test]
fn a_killed_run_is_continued() {
    const CHILD: &str = "LUMINA_TEST_PRETOKENIZE";
    let pretokenize = |records: &Path, folder: &Path| {
        Tokenizers::open().run(&Records::open(records).unwrap(), folder, options()).unwrap()
    };
    if let Some(folder) = std::env::var_os(CHILD) {
        let folder = PathBuf::from(folder);
        pretokenize(&folder.join("records.jsonl"), &folder.join("killed"));
        return;
    }

    let folder = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for index in 0..60 {
        let image = format!("{index}.png");
        random_image(index).save(folder.path().join(&image)).unwrap();
        lines += &match index % 10 {
            3 => format!("{{\"conversations\": {index}}}"),
            6 => r#"{"conversations": [{"from": "human", "value": "Draw."}], "image": ["nowhere.png"]}"#.to_owned(),
            _ => {
                let turns = serde_json::to_string(&turns(&["A picture, please.", "Here: <|image|>"])).unwrap();
                format!("{{\"conversations\": {turns}, \"image\": [\"{image}\"]}}")
            }
        };
        lines.push('\n');
    }
    let records = folder.path().join("records.jsonl");
    std::fs::write(&records, lines).unwrap();
    let undisturbed = folder.path().join("undisturbed");
    let done = pretokenize(&records, &undisturbed);
    assert_eq!((done.done, done.skipped), (60, 12));
    let expected = files(&undisturbed);

    let killed = folder.path().join("killed");
    let grown = || -> usize {
        let length =
            |file: &PathBuf| std::fs::metadata(killed.join(file)).map_or(0, |metadata| metadata.len() as usize);
        expected.keys().map(length).sum()
    };
    let all: usize = expected.values().map(Vec::len).sum();
    let mut n_killed = 0;
    for part in 1..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_run_is_continued"])
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Where the next thread looks, not when: this ends once the child has written enough, or has ended.
        while grown() < all * part / 8 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        n_killed += usize::from(!child.wait().unwrap().success());
    }
    assert!(n_killed > 0, "the child was always done before it could be killed");
    assert_eq!(pretokenize(&records, &killed), done);
    assert_same(&killed, &expected, "after kills");
}

#[test]
fn a_rank_belongs_to_one_process_and_one_run() {
    let tokenizers = Tokenizers::open();
    let records = Records::made(10, text_record);
    let folder = tempfile::tempdir().unwrap();
    let pretokenizer = Pretokenizer::new(&tokenizers.images, &tokenizers.unirep, options()).unwrap();
    let mut inner = Vec::new();
    pretokenizer
        .run(&records, folder.path(), |_| inner.push(pretokenizer.run(&records, folder.path(), |_| ())))
        .unwrap();
    assert!(!inner.is_empty() && inner.iter().all(|result| matches!(result, Err(Error::Busy { .. }))), "{inner:?}");

    let expected = files(folder.path());
    let others = [
        PretokenizeOptions { target_px: 96, ..options() },
        PretokenizeOptions { crop: CropChoice::Center, ..options() },
        PretokenizeOptions { crop: CropChoice::Random { seed: 1, best_of: 1 }, ..options() },
        PretokenizeOptions { window: 5, ..options() },
    ];
    for other in others {
        assert!(matches!(tokenizers.run(&records, folder.path(), other), Err(Error::OtherRun { .. })));
    }
    let more = Records::made(11, text_record);
    assert!(matches!(tokenizers.run(&more, folder.path(), options()), Err(Error::OtherRun { .. })));
    assert_same(folder.path(), &expected, "after refusals");

    std::fs::remove_file(folder.path().join("0-of-1-run.json")).unwrap();
    assert!(tokenizers.run(&records, folder.path(), options()).is_err());
    for foreign in ["not a shard, but long enough", "short"] {
        std::fs::write(folder.path().join("1-of-2.tokens"), foreign).unwrap();
        let rank = PretokenizeOptions { rank: 1, splits: 2, ..options() };
        assert!(tokenizers.run(&records, folder.path(), rank).is_err());
        assert_eq!(std::fs::read_to_string(folder.path().join("1-of-2.tokens")).unwrap(), foreign);
    }
}

#[test]
fn options_out_of_range_are_errors() {
    let Tokenizers { images, unirep } = Tokenizers::open();
    for bad in [
        PretokenizeOptions { rank: 1, ..options() },
        PretokenizeOptions { splits: 0, ..options() },
        PretokenizeOptions { window: 0, ..options() },
        PretokenizeOptions { images_per_pass: 0, ..options() },
        PretokenizeOptions { target_px: 31, ..options() },
    ] {
        assert!(Pretokenizer::new(&images, &unirep, bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn more_ranks_than_records() {
    let tokenizers = Tokenizers::open();
    let records = Records::made(2, text_record);
    let folder = tempfile::tempdir().unwrap();
    for rank in 0..5 {
        let done =
            tokenizers.run(&records, folder.path(), PretokenizeOptions { rank, splits: 5, ..options() }).unwrap();
        assert_eq!(done.total, u64::from(rank < 2));
    }
    let joined = concatenate(folder.path()).unwrap();
    assert_eq!((joined.items, TokenItems::open(joined.index).unwrap().len()), (2, 2));
}
