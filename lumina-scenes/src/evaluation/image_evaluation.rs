//! Compares an image with a caption.

use image::RgbImage;
use lumina_core::ImageSize;

use super::detection::{DetectedObject, Detection, detect};
use crate::{Caption, Mention};

/// So many detected objects are assigned at most. An image with more is wrong anyway, and must not take long.
const MAX_ASSIGNED: usize = 12;

/// Which properties of an image match a caption.
///
/// Detected objects are assigned to the caption's objects so that most attributes match. An attribute is correct if it
/// matches for all objects of the caption. What the caption does not state matches, but for fills and shades: without a
/// word for them they are plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ImageEvaluation {
    /// The image has the requested size in pixels.
    pub size_px: bool,
    /// The image contains as many objects as the caption, and nothing else.
    pub count: bool,
    /// The shapes match.
    pub shapes: bool,
    /// The colours match.
    pub colours: bool,
    /// The fills match.
    pub fills: bool,
    /// The sizes, small or large, match.
    pub sizes: bool,
    /// The positions match; true if the caption states none.
    pub positions: bool,
    /// The relation of the objects matches, [to anyone's eye](crate::Relation::clearly_holds). True if the caption
    /// states none.
    pub relation: bool,
    /// The background and its shade match.
    pub background: bool,
}

/// An assignment of detected objects to mentions, evaluated.
struct Assignment {
    n_matches: usize,
    evaluation: ImageEvaluation,
}

impl ImageEvaluation {
    /// Compares the detected content of an image with a caption and the requested size.
    pub fn new(caption: &Caption, size: ImageSize, detection: &Detection) -> Self {
        let mentions = caption.objects();
        let mut best: Option<Assignment> = None;
        let n_objects = detection.objects.len().min(MAX_ASSIGNED);
        for_each_assignment(&mut Vec::new(), mentions.len(), n_objects, &mut |objects| {
            let assignment = Assignment::evaluate(caption, &mentions, detection, objects);
            if best.as_ref().is_none_or(|best| assignment.n_matches > best.n_matches) {
                best = Some(assignment);
            }
        });
        let nothing_matches = Self {
            size_px: false,
            count: false,
            shapes: false,
            colours: false,
            fills: false,
            sizes: false,
            positions: false,
            relation: false,
            background: false,
        };
        Self {
            size_px: detection.size_px == size.into(),
            count: detection.objects.len() == mentions.len() && detection.n_unknown_regions == 0,
            background: match (caption.backdrop(), detection.backdrop) {
                (None, found) => found.is_some_and(|found| !found.shaded),
                (stated, found) => stated == found,
            },
            ..best.map_or(nothing_matches, |best| best.evaluation)
        }
    }

    /// Whether all properties match.
    pub fn is_correct(&self) -> bool {
        self.incorrect_properties().next().is_none()
    }

    /// The names of the properties that do not match.
    pub fn incorrect_properties(&self) -> impl Iterator<Item = &'static str> {
        let Self { size_px, count, shapes, colours, fills, sizes, positions, relation, background } = *self;
        let properties = [
            (size_px, "image size"),
            (count, "number of objects"),
            (shapes, "shape"),
            (colours, "colour"),
            (fills, "fill"),
            (sizes, "size"),
            (positions, "position"),
            (relation, "relation"),
            (background, "background"),
        ];
        properties.into_iter().filter(|(matches, _)| !matches).map(|(_, name)| name)
    }
}

impl Assignment {
    /// Evaluates the assignment of the detected object `objects[i]`, or none, to mention `i`.
    fn evaluate(caption: &Caption, mentions: &[Mention], detection: &Detection, objects: &[Option<usize>]) -> Self {
        let pairs: Vec<(&Mention, Option<&DetectedObject>)> = mentions
            .iter()
            .zip(objects)
            .map(|(mention, index)| (mention, index.and_then(|index| detection.objects.get(index))))
            .collect();
        let count = |matches: &dyn Fn(&Mention, &DetectedObject) -> bool| {
            pairs.iter().filter(|(mention, object)| object.is_some_and(|object| matches(mention, object))).count()
        };
        let shapes = count(&|mention, object| mention.shape == object.kind.shape);
        let colours = count(&|mention, object| mention.colour.is_none_or(|colour| colour == object.kind.colour));
        let fills = count(&|mention, object| mention.fill == object.kind.fill);
        let sizes = count(&|mention, object| mention.size.is_none_or(|size| size == object.kind.size));
        let positions =
            count(&|mention, object| mention.position.is_none_or(|position| position == detection.position(object)));
        let relation = caption.stated_relation().is_none_or(|relation| match pairs[..] {
            [(_, Some(first)), (_, Some(second))] => {
                relation.clearly_holds(first.nearest_centre_px(), second.nearest_centre_px()) == Some(true)
            }
            _ => false,
        });
        let all = pairs.len();
        let evaluation = ImageEvaluation {
            size_px: true,
            count: true,
            shapes: shapes == all,
            colours: colours == all,
            fills: fills == all,
            sizes: sizes == all,
            positions: positions == all,
            relation,
            background: true,
        };
        Self { n_matches: shapes + colours + fills + sizes + positions + usize::from(relation), evaluation }
    }
}

/// Calls `visit` with every assignment of different `objects` to `mentions`, with `None` only if there are too few
/// objects.
fn for_each_assignment(
    assigned: &mut Vec<Option<usize>>,
    mentions: usize,
    objects: usize,
    visit: &mut dyn FnMut(&[Option<usize>]),
) {
    if assigned.len() == mentions {
        return visit(assigned);
    }
    let free: Vec<usize> = (0..objects).filter(|index| !assigned.contains(&Some(*index))).collect();
    let too_few = free.len() < mentions - assigned.len();
    for index in free.into_iter().map(Some).chain(too_few.then_some(None)) {
        assigned.push(index);
        for_each_assignment(assigned, mentions, objects, visit);
        assigned.pop();
    }
}

/// Compares an image with a caption and the requested size.
///
/// An edit has succeeded if the image matches the caption of the edited scene.
///
/// ```
/// use lumina_scenes::evaluation::evaluate_image;
/// use lumina_scenes::{Scenes, Split};
///
/// let scenes = Scenes::new(5, Split::Test, 256)?;
/// let (requested, other) = (scenes.scene(0), scenes.scene(1));
/// assert!(evaluate_image(&requested.caption(), requested.size(), &requested.image()).is_correct());
/// assert!(!evaluate_image(&requested.caption(), requested.size(), &other.image()).is_correct());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn evaluate_image(caption: &Caption, size: ImageSize, image: &RgbImage) -> ImageEvaluation {
    ImageEvaluation::new(caption, size, &detect(image))
}
