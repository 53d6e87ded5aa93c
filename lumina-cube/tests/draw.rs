//! Draws on the device against those of the host's sampler, to the bit.
#![cfg(any(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use std::sync::Arc;

use lumina_core::{ImageSize, TokenRole, Vocabulary, reserved_token_name};
use lumina_cube::draw::{Draw, NAN_LOGIT, NOTHING_LEFT, draw};
use lumina_cube::{Buffer, Gpu};
use lumina_sampling::{
    Candidates, DrawKey, Error, LogitsRow, Sampler, SamplingOptions, Step, StreamState, Temperature, TopK, guide, race,
};
use support::gpu;

/// Random words, whose high bits are the better ones.
struct Random(Box<dyn Iterator<Item = u32>>);

impl Random {
    fn new(seed: u32) -> Self {
        Self(Box::new(lumina_testing::lcg(seed)))
    }
    fn word(&mut self) -> u32 {
        let high = self.0.next().unwrap() & 0xffff_0000;
        high | self.0.next().unwrap() >> 16
    }
    fn below(&mut self, n: usize) -> usize {
        (self.word() >> 8) as usize % n
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    /// Roughly normal.
    fn logit(&mut self) -> f32 {
        (0..4).map(|_| (self.word() >> 8) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>() * 2.0
    }
}

/// Logits of one of several kinds: as models give them, with many ties, with infinities, zeros of both signs, near the
/// greatest floats, all equal.
fn row(random: &mut Random, kind: usize, width: usize) -> Vec<f32> {
    let scale = random.pick(&[0.01, 1.0, 3.0, 10.0, 60.0]);
    let logit = |random: &mut Random| match kind {
        0 | 1 => random.logit() * scale,
        2 => (random.logit() * 4.0).round() / 2.0,
        3 if random.below(4) == 0 => f32::NEG_INFINITY,
        4 if random.below(40) == 0 => f32::INFINITY,
        5 => random.pick(&[0.0, -0.0, 1e-8, -1e-8, 0.5]),
        6 => random.logit() * 2e38,
        7 => -3.0,
        _ => random.logit() * scale,
    };
    (0..width).map(|_| logit(random)).collect()
}

fn expected(token: Result<u32, Error>) -> u32 {
    match token {
        Ok(token) => token,
        Err(Error::NanLogit { .. }) => NAN_LOGIT,
        Err(Error::NothingLeft { .. }) => NOTHING_LEFT,
        Err(error) => panic!("{error}"),
    }
}

fn run(gpu: &Gpu, logits: &[f32], first_id: u32, width: usize, mask: Option<&[u32]>, draws: &[Draw]) -> Vec<u32> {
    let words: Vec<u32> = draws.iter().flat_map(Draw::words).collect();
    let tokens = gpu.upload(&vec![7; draws.len()]);
    let mask = mask.map(|mask| gpu.upload(mask));
    draw(gpu, &gpu.upload_f32(logits), first_id, width, mask.as_ref(), &gpu.upload(&words), &tokens);
    gpu.read(&tokens).unwrap()
}

/// A draw at position 0 by the parts of the host's pipeline.
fn host(
    rows: &[Vec<f32>],
    first_id: u32,
    mask: Option<&[u32]>,
    draw: &Draw,
    state: &StreamState,
) -> Result<u32, Error> {
    let mut logits = rows[draw.row as usize].clone();
    if let Some(other) = draw.unconditional {
        guide(&mut logits, &rows[other as usize], draw.guidance_scale);
    }
    for (at, logit) in logits.iter_mut().enumerate() {
        if mask.is_some_and(|mask| mask[at / 32] >> (at % 32) & 1 == 0) {
            *logit = f32::NEG_INFINITY;
        }
    }
    let row = [vec![f32::NEG_INFINITY; first_id as usize], logits].concat();
    let mut candidates = Candidates::from_row(&row)?;
    TopK { image: 1, text: draw.top_k as usize }.apply(&mut candidates, state);
    if draw.temperature != 1.0 {
        Temperature(draw.temperature).apply(&mut candidates, state);
    }
    candidates.draw(DrawKey { seed: draw.seed, branch: draw.branch })
}

/// Names and ids as in the published models.
fn vocabulary() -> Arc<Vocabulary> {
    let fixed = [("<s>", 0), ("<pad>", 1), ("<eoss>", 8196), ("<racm3:break>", 8197), ("<|image|>", 65_535)];
    let images = (0..8192).map(|code| (TokenRole::Code(code).name().unwrap(), 4 + code));
    let reserved = (8706..9200).map(|number| (reserved_token_name(number).into(), number + 4));
    let tokens: Vec<_> = images.chain(reserved).chain(fixed.map(|(name, id)| (name.into(), id))).collect();
    Arc::new(Vocabulary::from_tokens(tokens.iter().map(|(name, id)| (name.as_ref(), *id))).unwrap())
}

#[test]
fn any_logits_draw_the_token_of_the_host() {
    let Some(gpu) = gpu() else { return };
    let state = StreamState::new(vocabulary(), &[]);
    let mut random = Random::new(1);
    let (mut n_draws, mut n_errors) = (0, 0);
    for launch in 0..72 {
        let width = [1usize, 3, 50, 300, 1000, 5000][launch % 6];
        let first_id = random.pick(&[0, 1, 4, 6, 7, 4091]);
        let n = if width == 5000 { 12 } else { 64 };
        // As likely as not, and in some launches nothing or next to nothing is allowed.
        let mask: Option<Vec<u32>> = (launch % 3 == 1).then(|| {
            (0..width.div_ceil(32)).map(|_| random.word() & if launch % 9 == 1 { 0x11 } else { !0 }).collect()
        });
        let rows: Vec<Vec<f32>> = (0..2 * n).map(|at| row(&mut random, at / 2 % 9, width)).collect();
        let draws: Vec<Draw> = (0..n as u32)
            .map(|at| Draw {
                row: 2 * at,
                unconditional: (at % 4 != 0).then_some(2 * at + 1),
                guidance_scale: random.pick(&[4.0, 1.5, 0.3, 0.0, -2.0, 7.3]),
                top_k: [1, 2, 10, 200, 2000, u32::MAX, 1 + random.below(width) as u32][at as usize % 7],
                temperature: random.pick(&[1.0, 1.0, 0.4, 0.9, 2.5, 7.7, 1e-6, 3e5, f32::MAX]),
                seed: u64::from(random.word()) << 32 | u64::from(random.word()),
                branch: u64::from(random.word()) << random.below(33),
                position: 0,
            })
            .collect();
        let found = run(&gpu, &rows.concat(), first_id, width, mask.as_deref(), &draws);
        for (draw, found) in draws.iter().zip(found) {
            let expected = expected(host(&rows, first_id, mask.as_deref(), draw, &state));
            assert_eq!(found, expected, "launch {launch}: width {width}, first id {first_id}, {draw:?}");
            n_draws += 1;
            n_errors += usize::from(expected >= NAN_LOGIT);
        }
    }
    assert!(n_draws > 3900 && n_errors > 50 && n_errors < n_draws / 4, "{n_errors} errors of {n_draws}");
}

/// Two tokens that arrive at once: a few seeds have such a pair among many tokens.
#[test]
fn of_ties_the_lower_token_wins() {
    const WIDTH: usize = 8192;
    let Some(gpu) = gpu() else { return };
    let (mut rows, mut draws, mut lower) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..24 {
        let time = |token| (race::arrival(race::noise(seed, 0, 3, token)), token);
        let mut times: Vec<(u32, u32)> = (0..WIDTH as u32).map(time).collect();
        times.sort_unstable();
        for pair in times.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let mut row = vec![f32::NEG_INFINITY; WIDTH];
            pair.iter().for_each(|&(_, token)| row[token as usize] = 1.5);
            rows.extend(row);
            draws.push(Draw {
                row: draws.len() as u32,
                unconditional: None,
                guidance_scale: 1.0,
                top_k: 2,
                temperature: 1.0,
                seed,
                branch: 0,
                position: 3,
            });
            lower.push(pair[0].1);
        }
    }
    assert!(lower.len() > 4, "{} ties", lower.len());
    assert_eq!(run(&gpu, &rows, 0, WIDTH, None, &draws), lower);
}

/// The whole sampler in an image, at many positions, several draws of one pass with their own options.
#[test]
fn tokens_of_an_image_are_those_of_the_sampler() {
    let Some(gpu) = gpu() else { return };
    let vocabulary = vocabulary();
    let size = ImageSize::new(768, 768).unwrap();
    let cells = |cells| vocabulary.size_token(cells).unwrap();
    let begun = [vocabulary.bos(), vocabulary.image_start(), cells(size.height_cells()), cells(size.width_cells())];
    let mut state = StreamState::new(vocabulary.clone(), &begun);
    let mut random = Random::new(2);
    let mut n_draws = 0;
    for _ in 0..24 {
        let (mut rows, mut draws, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..12 {
            let mut options =
                SamplingOptions::default().seed(u64::from(random.word()) << 7).branch(random.below(3) as u64);
            options.guidance_scale = random.pick(&[4.0, 1.0, 3.3]);
            options.temperature = random.pick(&[1.0, 0.7, 1.3]);
            options.image_top_k = random.pick(&[2000, 200, 1, 20_000]);
            let mut sampler = Sampler::new(&vocabulary, &options).unwrap();
            if let Some(token) = sampler.forced(&state) {
                state.push(token);
                continue;
            }
            assert_eq!(sampler.candidate_range(&state, 65_536), 4..8196);
            let kind = random.below(3);
            let pair = [0, 1].map(|_| row(&mut random, kind, 8192));
            let [conditional, unconditional] = [0, 1].map(|at| LogitsRow { first_id: 4, logits: &pair[at] });
            let token = sampler.sample(conditional, Some(unconditional), &state).unwrap();
            draws.push(Draw {
                row: rows.len() as u32,
                unconditional: sampler.unconditional(&state).map(|_| rows.len() as u32 + 1),
                guidance_scale: options.guidance_scale,
                top_k: options.image_top_k as u32,
                temperature: options.temperature,
                seed: options.seed,
                branch: options.branch,
                position: state.len() as u32,
            });
            rows.extend(pair);
            tokens.push(token);
            state.push(token);
        }
        assert_eq!(run(&gpu, &rows.concat(), 4, 8192, None, &draws), tokens, "{draws:?}");
        n_draws += draws.len();
    }
    assert!(n_draws > 250, "{n_draws}");
}

/// What a recorded step does: the launch stays, positions and logits change in place.
#[test]
fn a_recorded_draw_follows_its_buffers() {
    let Some(gpu) = gpu() else { return };
    let mut random = Random::new(3);
    let plain = Draw {
        row: 0,
        unconditional: None,
        guidance_scale: 1.0,
        top_k: 50,
        temperature: 1.0,
        seed: 5,
        branch: 0,
        position: 0,
    };
    let (logits, draws) = (gpu.upload_f32(&row(&mut random, 0, 300)), gpu.upload(&plain.words()));
    let tokens = gpu.upload(&[0]);
    let launch = |tokens: &Buffer| draw(&gpu, &logits, 0, 300, None, &draws, tokens);
    let turn = gpu.turn();
    let (recording, ()) = gpu.record(|| launch(&tokens)).unwrap();
    let mut different = 0;
    for position in 0..20 {
        let values = row(&mut random, 0, 300);
        gpu.write(&logits, &values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        let now = Draw { position, seed: u64::from(position / 4), ..plain };
        gpu.write(&draws, &now.words());
        recording.replay().unwrap();
        let found = gpu.read(&tokens).unwrap();
        assert_eq!(found, run(&gpu, &values, 0, 300, None, &[now]));
        different += u32::from(found != run(&gpu, &values, 0, 300, None, &[plain]));
    }
    drop(turn);
    assert!(different > 5, "{different}");
}
