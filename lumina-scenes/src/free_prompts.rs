//! Prompts in people's own words, to test a model with. None of them is a training prompt.

use lumina_core::ImageSize;

use crate::Caption;

/// A prompt in free wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreePrompt {
    /// What a person writes.
    pub text: &'static str,
    /// The canonical caption of what must be true of the image.
    pub caption: &'static str,
    /// The size of the image in pixels, width and height.
    pub size: (u32, u32),
}

impl FreePrompt {
    /// What must be true of the image.
    ///
    /// # Errors
    /// Those of parsing a caption, of which the prompts of [`free_prompts`] have none.
    pub fn expected(&self) -> crate::Result<Caption> {
        self.caption.parse()
    }

    /// The size of the image.
    ///
    /// # Errors
    /// [`Error::TargetSize`](crate::Error::TargetSize) if there is no image of this size.
    pub fn image_size(&self) -> crate::Result<ImageSize> {
        ImageSize::new(self.size.0, self.size.1).map_err(crate::Error::TargetSize)
    }
}

const fn of(text: &'static str, caption: &'static str) -> FreePrompt {
    FreePrompt { text, caption, size: (256, 256) }
}

/// A hundred prompts, as a hundred people might type them: terse ones and polite ones, in any order and spelling.
///
/// They were written by hand, before any model was trained. Words that they needed, such as `both` and `hello`, were
/// then added to [`Wording`](crate::Wording), so that all are among [`known_words`](crate::known_words), and those that
/// training prompts repeated were changed.
///
/// ```
/// for prompt in lumina_scenes::free_prompts() {
///     assert!(!prompt.expected()?.mentions().is_empty(), "{}", prompt.text);
/// }
/// # Ok::<(), lumina_scenes::Error>(())
/// ```
pub fn free_prompts() -> &'static [FreePrompt] {
    PROMPTS
}

const PROMPTS: &[FreePrompt] = &[
    of("a red ball on white, nothing else", "a red circle on a white background"),
    of("red circle pls", "a red circle"),
    of("Hi, can you draw a big blue star for me?", "a large blue star"),
    of("blue donut on gray", "a blue ring on a grey background"),
    of("I would love to see a small yellow heart in the middle of the picture.", "a small yellow heart in the centre"),
    of("image: 3 stars", "three stars"),
    of("three tiny red hearts please, on black", "three small red hearts on a black background"),
    of("make it a green triangle, big one", "a large green triangle"),
    of("Two boxes, one red and one blue.", "a red square and a blue square"),
    of("an arrow, thanks. nothing else please", "an arrow"),
    of("AN ORANGE ARROW, LEFT SIDE OF THE IMAGE", "an orange arrow on the left"),
    of("yellow moon on a black sky", "a yellow moon on a black background"),
    of("crescent moon, yellow, top right, black background", "a yellow moon in the top right on a black background"),
    of("a red heart over a green box", "a red heart above a green square"),
    of("purple star below an orange circle", "a purple star below an orange circle"),
    of("star left, moon right", "a star on the left and a moon on the right"),
    of(
        "please put a blue square in the top left corner and a red one in the bottom right corner",
        "a blue square in the top left and a red square in the bottom right",
    ),
    of("big red plus sign on a white background", "a large red cross on a white background"),
    of("Draw four little green balls.", "four small green circles"),
    of("a yellow ball, i want spots on it", "a dotted yellow circle"),
    of("polka dot heart, red", "a dotted red heart"),
    of("i want a heart with stripes", "a striped heart"),
    of("huge stripy violet star in the middle", "a large striped purple star in the centre"),
    of("can i get a green ring and a blue ring", "a green ring and a blue ring"),
    of("a picture with a big circle in it", "a large circle"),
    of("light blue background with a yellow star", "a yellow star on a sky blue background"),
    of("there should be a red arrow at the bottom", "a red arrow at the bottom"),
    of("red triangle under blue circle, gray background", "a red triangle below a blue circle on a grey background"),
    of("show me one orange square and nothing else", "an orange square"),
    of("a moon and a star on black", "a moon and a star on a black background"),
    of("Could I have a small purple cross in the lower left, please?", "a small purple cross in the bottom left"),
    of(
        "little green arrow next to a big red box, on its left",
        "a small green arrow to the left of a large red square",
    ),
    of("two yellow stars on a sky blue background, both small", "two small yellow stars on a sky blue background"),
    of("a square that is orange and striped", "a striped orange square"),
    of("the background is black and there is a green heart", "a green heart on a black background"),
    of("black background, 2 red circles", "two red circles on a black background"),
    of("on a gray background: a big yellow triangle", "a large yellow triangle on a grey background"),
    of(
        "A gradient background in light blue, with a big orange ball",
        "a large orange circle on a shaded sky blue background",
    ),
    of("white gradient, purple heart", "a purple heart on a shaded white background"),
    of("shaded gray background and two blue squares", "two blue squares on a shaded grey background"),
    of("circle square triangle", "a circle, a square and a triangle"),
    of("a circle, a square, and a triangle, all red", "a red circle, a red square and a red triangle"),
    of("Paint me a small blue moon at the top.", "a small blue moon at the top"),
    of(
        "a heart in the top right and a star in the bottom left",
        "a heart in the top right and a star in the bottom left",
    ),
    of(
        "upper left: red cross. lower right: green cross.",
        "a red cross in the top left and a green cross in the bottom right",
    ),
    of("generate image, large green disc, black backdrop", "a large green circle on a black background"),
    of("one big star and two small ones", "a large star and two small stars"),
    of("a large blue ring with a small red star below it", "a small red star below a large blue ring"),
    of("blue hoop to the right of a yellow block", "a blue ring to the right of a yellow square"),
    of("i need an icon of a red heart on white", "a red heart on a white background"),
    of("just a plain green circle", "a green circle"),
    of("dotted arrow, orange, pointing right", "a dotted orange arrow"),
    of("give me a couple of purple triangles", "two purple triangles"),
    of("A pair of balls, both with stripes", "two striped circles"),
    of("crosses, four of them", "four crosses"),
    of(
        "Large yellow circle in the upper right corner, light blue background.",
        "a large yellow circle in the top right on a sky blue background",
    ),
    of(
        "a yellow disc at the top and a green box at the bottom",
        "a yellow circle at the top and a green square at the bottom",
    ),
    of("small red square in the center please", "a small red square in the centre"),
    of("Make a picture of a tiny orange moon on a white background", "a small orange moon on a white background"),
    of("I'd like one red star above one blue star", "a red star above a blue star"),
    of("the moon, yellow and big", "a large yellow moon"),
    of("draw a donut with polka dots", "a dotted ring"),
    of("a green ball, a red ball and a blue ball", "a green circle, a red circle and a blue circle"),
    of("three balls: green, red, blue", "a green circle, a red circle and a blue circle"),
    of("sqaure, blue", "a blue square"),
    of("yelow traingle on black backround", "a yellow triangle on a black background"),
    of("RED HEART, BIG, ON THE LEFT", "a large red heart on the left"),
    of("Please Draw A Small Green Star On A White Background", "a small green star on a white background"),
    of("in the bottom left corner there is a purple ring", "a purple ring in the bottom left"),
    of(
        "a red arrow on the left side and a blue arrow on the right side",
        "a red arrow on the left and a blue arrow on the right",
    ),
    of(
        "two hearts, a red one and a purple one, on a light blue background",
        "a red heart and a purple heart on a sky blue background",
    ),
    of("create an image: stripy green square, dotted red circle", "a striped green square and a dotted red circle"),
    of("a striped circle above a dotted circle", "a striped circle above a dotted circle"),
    of("a big star in purple", "a large purple star"),
    of("orange plus on gray", "an orange cross on a grey background"),
    of(
        "an orange box to the left of a purple box on white",
        "an orange square to the left of a purple square on a white background",
    ),
    of("violet crescent, shaded black background", "a purple moon on a shaded black background"),
    of("2 small blue squares and 1 big red circle", "two small blue squares and a large red circle"),
    of("on the right a heart, on the left an arrow", "a heart on the right and an arrow on the left"),
    of("middle: huge green plus sign", "a large green cross in the centre"),
    of("a small red circle beneath a large red circle", "a small red circle below a large red circle"),
    of("I want to see a yellow heart. The background should be gray.", "a yellow heart on a grey background"),
    of("blue star, background just white", "a blue star on a white background"),
    of("put two stars and one moon on a black background", "two stars and a moon on a black background"),
    of("a tiny dotted square in the bottom right corner", "a small dotted square in the bottom right"),
    of("show a ring on top of a block", "a ring above a square"),
    of("four arrows, all of them blue", "four blue arrows"),
    of("let me see a stripy moon", "a striped moon"),
    of("image with red cross in the middle, white background", "a red cross in the centre on a white background"),
    of("a scene with a large ball at the top right, color yellow", "a large yellow circle in the top right"),
    of(
        "green crescent at the left, orange crescent at the right",
        "a green moon on the left and an orange moon on the right",
    ),
    FreePrompt {
        text: "a photo of a red ball, on the left side of the picture",
        caption: "a red circle on the left",
        size: (384, 160),
    },
    FreePrompt { text: "image showing star, heart and ring", caption: "a star, a heart and a ring", size: (384, 160) },
    FreePrompt {
        text: "picture, blue arrow, at the bottom of the image",
        caption: "a blue arrow at the bottom",
        size: (160, 384),
    },
    FreePrompt {
        text: "a green box under a yellow box, black background",
        caption: "a green square below a yellow square on a black background",
        size: (192, 320),
    },
    FreePrompt {
        text: "small plus, big plus, both orange",
        caption: "a small orange cross and a large orange cross",
        size: (320, 192),
    },
    of("I'd like a polka dot ball on black please", "a dotted circle on a black background"),
    of("hello can you make a big orange cross, then a small one below it", "a small cross below a large orange cross"),
    of("hearts: two, small, red", "two small red hearts"),
    of(
        "a triangle on the right of a circle, both green, on a white background",
        "a green triangle to the right of a green circle on a white background",
    ),
];
