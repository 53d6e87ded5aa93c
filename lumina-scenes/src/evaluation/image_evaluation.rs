//! Whether a picture shows what a caption says, and whether a caption says what a scene shows.

use image::RgbImage;
use lumina_core::ImageSize;

use super::{Detection, Found, detect};
use crate::{Description, Mention, Scene};

/// What is right in a picture.
///
/// Each object of the caption is given one of the picture, in the way that makes most right. What is said of shapes,
/// colours and so on is true where it is right of all the caption's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// The picture has the size in pixels that was asked for.
    pub size_px: bool,
    /// There are as many objects as the caption says, and nothing else.
    pub count: bool,
    /// Their shapes are right.
    pub shapes: bool,
    /// Their colours are right.
    pub colours: bool,
    /// Their sizes, small or large, are right.
    pub sizes: bool,
    /// They are where the caption says; true where it says nothing of places.
    pub positions: bool,
    /// They lie to each other as the caption says; true where it says nothing of that.
    pub relation: bool,
    /// The background is right.
    pub background: bool,
}

impl Verdict {
    /// What was found in a picture against a caption, and the size that was asked for.
    pub fn new(description: &Description, size: ImageSize, detection: &Detection) -> Self {
        let mentions = description.mentions();
        let mut best = None;
        for_each_choice(&mut Vec::new(), mentions.len(), detection.objects.len(), &mut |choice| {
            let verdict = Self::of_choice(description, detection, choice);
            if best.as_ref().is_none_or(|(points, _)| verdict.0 > *points) {
                best = Some(verdict);
            }
        });
        let nothing_right = Self {
            size_px: false,
            count: false,
            shapes: false,
            colours: false,
            sizes: false,
            positions: false,
            relation: false,
            background: false,
        };
        let verdict = best.map_or(nothing_right, |(_, verdict)| verdict);
        Self {
            size_px: detection.size_px == size.into(),
            count: detection.objects.len() == mentions.len() && detection.strays == 0,
            background: detection.background == Some(description.background()),
            ..verdict
        }
    }

    /// Whether all is right.
    pub fn all(&self) -> bool {
        let Self { size_px, count, shapes, colours, sizes, positions, relation, background } = *self;
        size_px && count && shapes && colours && sizes && positions && relation && background
    }

    /// The verdict where each mention is the detected object of this index, if any, and how much is right in it.
    fn of_choice(description: &Description, detection: &Detection, choice: &[Option<usize>]) -> (usize, Self) {
        let pairs: Vec<(&Mention, Option<&Found>)> = description
            .mentions()
            .iter()
            .zip(choice)
            .map(|(mention, index)| (mention, index.and_then(|index| detection.objects.get(index))))
            .collect();
        let right = |test: &dyn Fn(&Mention, &Found) -> bool| {
            pairs.iter().filter(|(mention, found)| found.is_some_and(|found| test(mention, found))).count()
        };
        let shapes = right(&|mention, found| mention.kind.shape == found.kind.shape);
        let colours = right(&|mention, found| mention.kind.colour == found.kind.colour);
        let sizes = right(&|mention, found| mention.kind.size == found.kind.size);
        let places = right(&|mention, found| mention.place.is_none_or(|place| place == detection.place(found)));
        let relation = description.stated_relation().is_none_or(|relation| match pairs[..] {
            [(_, Some(first)), (_, Some(second))] => relation.holds(detection.cell(first), detection.cell(second)),
            _ => false,
        });
        let all = pairs.len();
        let verdict = Self {
            size_px: true,
            count: true,
            shapes: shapes == all,
            colours: colours == all,
            sizes: sizes == all,
            positions: places == all,
            relation,
            background: true,
        };
        (shapes + colours + sizes + places + usize::from(relation), verdict)
    }
}

/// Calls `visit` with every way to give each of `mentions` one of `objects`, or none where there are too few.
fn for_each_choice(
    chosen: &mut Vec<Option<usize>>,
    mentions: usize,
    objects: usize,
    visit: &mut dyn FnMut(&[Option<usize>]),
) {
    if chosen.len() == mentions {
        return visit(chosen);
    }
    let free: Vec<usize> = (0..objects).filter(|index| !chosen.contains(&Some(*index))).collect();
    let spare = free.len() < mentions - chosen.len();
    for index in free.into_iter().map(Some).chain(spare.then_some(None)) {
        chosen.push(index);
        for_each_choice(chosen, mentions, objects, visit);
        chosen.pop();
    }
}

/// What is right in a picture that was asked for by a caption and a size.
///
/// An edit has succeeded where [`Verdict::all`] is true for the description of the edited scene.
///
/// ```
/// use lumina_scenes::evaluation::judge;
/// use lumina_scenes::{Scenes, Split};
///
/// let scenes = Scenes::new(5, Split::Test, 96)?;
/// let (asked, other) = (scenes.scene(0), scenes.scene(1));
/// assert!(judge(&asked.description(), asked.size(), &asked.picture()).all());
/// assert!(!judge(&asked.description(), asked.size(), &other.picture()).all());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn judge(description: &Description, size: ImageSize, picture: &RgbImage) -> Verdict {
    Verdict::new(description, size, &detect(picture))
}

/// Whether a text is the caption of a scene: all its objects with their places, in any order, and the background.
pub fn caption_is_right(answer: &str, scene: &Scene) -> bool {
    answer.parse::<Description>().is_ok_and(|description| description.agrees_with(&scene.description()))
}
