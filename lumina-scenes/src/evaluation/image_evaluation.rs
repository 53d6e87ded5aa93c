//! Compares an image with a caption.

use image::RgbImage;
use lumina_core::ImageSize;

use super::detection::{DetectedObject, Detection, detect};
use crate::{Caption, Mention};

/// Which properties of an image match a caption.
///
/// Detected objects are assigned to the caption's objects so that most attributes match. An attribute is correct if it
/// matches for all objects of the caption.
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
    /// The sizes, small or large, match.
    pub sizes: bool,
    /// The positions match; true if the caption states none.
    pub positions: bool,
    /// The relation of the objects matches; true if the caption states none.
    pub relation: bool,
    /// The background matches.
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
        let mentions = caption.mentions();
        let mut best: Option<Assignment> = None;
        for_each_assignment(&mut Vec::new(), mentions.len(), detection.objects.len(), &mut |objects| {
            let assignment = Assignment::evaluate(caption, detection, objects);
            if best.as_ref().is_none_or(|best| assignment.n_matches > best.n_matches) {
                best = Some(assignment);
            }
        });
        let nothing_matches = Self {
            size_px: false,
            count: false,
            shapes: false,
            colours: false,
            sizes: false,
            positions: false,
            relation: false,
            background: false,
        };
        Self {
            size_px: detection.size_px == size.into(),
            count: detection.objects.len() == mentions.len() && detection.n_unknown_regions == 0,
            background: detection.background == Some(caption.background()),
            ..best.map_or(nothing_matches, |best| best.evaluation)
        }
    }

    /// Whether all properties match.
    pub fn is_correct(&self) -> bool {
        self.incorrect_properties().next().is_none()
    }

    /// The names of the properties that do not match.
    pub fn incorrect_properties(&self) -> impl Iterator<Item = &'static str> {
        let Self { size_px, count, shapes, colours, sizes, positions, relation, background } = *self;
        let properties = [
            (size_px, "image size"),
            (count, "number of objects"),
            (shapes, "shape"),
            (colours, "colour"),
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
    fn evaluate(caption: &Caption, detection: &Detection, objects: &[Option<usize>]) -> Self {
        let pairs: Vec<(&Mention, Option<&DetectedObject>)> = caption
            .mentions()
            .iter()
            .zip(objects)
            .map(|(mention, index)| (mention, index.and_then(|index| detection.objects.get(index))))
            .collect();
        let count = |matches: &dyn Fn(&Mention, &DetectedObject) -> bool| {
            pairs.iter().filter(|(mention, object)| object.is_some_and(|object| matches(mention, object))).count()
        };
        let shapes = count(&|mention, object| mention.kind.shape == object.kind.shape);
        let colours = count(&|mention, object| mention.kind.colour == object.kind.colour);
        let sizes = count(&|mention, object| mention.kind.size == object.kind.size);
        let positions =
            count(&|mention, object| mention.position.is_none_or(|position| position == detection.position(object)));
        let relation = caption.stated_relation().is_none_or(|relation| match pairs[..] {
            [(_, Some(first)), (_, Some(second))] => relation.holds(detection.cell(first), detection.cell(second)),
            _ => false,
        });
        let all = pairs.len();
        let evaluation = ImageEvaluation {
            size_px: true,
            count: true,
            shapes: shapes == all,
            colours: colours == all,
            sizes: sizes == all,
            positions: positions == all,
            relation,
            background: true,
        };
        Self { n_matches: shapes + colours + sizes + positions + usize::from(relation), evaluation }
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
/// let scenes = Scenes::new(5, Split::Test, 96)?;
/// let (requested, other) = (scenes.scene(0), scenes.scene(1));
/// assert!(evaluate_image(&requested.caption(), requested.size(), &requested.image()).is_correct());
/// assert!(!evaluate_image(&requested.caption(), requested.size(), &other.image()).is_correct());
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn evaluate_image(caption: &Caption, size: ImageSize, image: &RgbImage) -> ImageEvaluation {
    ImageEvaluation::new(caption, size, &detect(image))
}
