//! The model of the repository, for tests of everything but this model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is told apart from images of 256 pixels is told apart from those of 96, in a seventh of the tokens.
const PRESET: &str = r#"{
  "_from_model_config": true,
  "bos_token_id": 0,
  "eos_token_id": 2,
  "lumina": {
    "target_size_px": 96,
    "guidance_scale": 1.5,
    "image_top_k": 5,
    "temperature": 0.4,
    "tasks": [
      "text_to_image", "captioning", "depth_estimation", "semantic_segmentation", "editing", "free_form"
    ],
    "image_sizes": [[128, 32], [128, 64], [96, 64], [96, 96], [64, 96], [64, 128], [32, 128]]
  }
}
"#;

/// The folder of the repository's model with a preset that has small images, and that states no words: what a test
/// draws of it takes little time. Its images show nothing, as it was not trained at such sizes.
pub fn model_of_small_images() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| make().expect("the folder of the test can be written"))
}

/// Makes it beside the test's program, where `cargo clean` finds it. Other tests may do the same at this time, so each
/// file gets its name when it is whole.
fn make() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.with_file_name("small-images-model");
    fs::create_dir_all(&folder)?;
    let place = |name: &std::ffi::OsStr, write: &dyn Fn(&Path) -> std::io::Result<()>| {
        let partial = folder.join(format!("{}.{}", name.display(), std::process::id()));
        write(&partial)?;
        fs::rename(&partial, folder.join(name))
    };
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../model"))? {
        let (file, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        place(&name, &|partial| match name == "generation_config.json" {
            true => fs::write(partial, PRESET),
            // No links: what a test does to its copy must not reach the repository.
            false => fs::copy(&file, partial).map(drop),
        })?;
    }
    Ok(folder)
}
