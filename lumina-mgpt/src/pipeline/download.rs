//! Parts of a model by their names on the hub: which files they need, and where these lie once they are downloaded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lumina_checkpoint::{Adapter, Checkpoint};
use lumina_hub::{DownloadProgress, Files, Hub, RepoName};
use lumina_vq::ImageTokenizer;
use serde::Deserialize;

use super::image_folder::IMAGE_FOLDERS;
use crate::convert::name_on_hub;
use crate::{Error, Result};

/// The file of a text tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// Chooses the files of a part.
pub(crate) type Select<'a> = dyn Fn(&Files<'_>) -> lumina_hub::Result<Vec<String>> + 'a;

/// Downloads what is named.
pub(crate) struct Downloads<'a> {
    /// `None` until the environment has been asked.
    pub(crate) hub: Option<Hub>,
    pub(crate) progress: &'a dyn Fn(DownloadProgress<'_>),
}

impl Downloads<'_> {
    /// Puts the folder of its files in the place of a name. A path to what is there stays as it is, and so does one
    /// that is no name.
    pub(crate) fn localise(&mut self, path: &mut PathBuf, select: &Select<'_>) -> Result<()> {
        let Some(name) = name_on_hub(path) else { return Ok(()) };
        let name: RepoName = name.parse()?;
        let hub = match self.hub.take() {
            Some(hub) => hub,
            None => Hub::from_env()?,
        };
        let folder = self.hub.insert(hub).snapshot(&name, select, &mut |progress| (self.progress)(progress));
        *path = folder.map_err(|error| match error {
            lumina_hub::Error::NoFile { file, .. } if file == TOKENIZER => Error::NoTokenizer { model: path.clone() },
            other => other.into(),
        })?;
        Ok(())
    }
}

/// Which parts of a model are wanted from its own repository.
pub(crate) struct Wanted {
    pub(crate) images: bool,
    pub(crate) tokenizer: bool,
}

impl Wanted {
    /// The files of a model.
    pub(crate) fn model(&self, files: &Files<'_>) -> lumina_hub::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let known: Vec<&str> = Checkpoint::folder_files().collect();
        // Where there is none, the error is of the first.
        let Some(weights) = files.one_of(&known) else {
            return Ok(known.iter().take(1).map(|&name| name.into()).collect());
        };
        let mut wanted = vec![weights.to_owned()];
        if weights == Checkpoint::INDEX {
            wanted.extend(files.read_json::<Index>(weights)?.weight_map.into_values());
        }
        // GGUF files contain the documents, mostly.
        let is_needed = !weights.ends_with(".gguf");
        for (name, is_wanted) in [("config.json", true), (TOKENIZER, self.tokenizer)] {
            if is_wanted && (is_needed || files.has(name)) {
                wanted.push(name.to_owned());
            }
        }
        // Those that are not read here are for other programs that open the folder.
        for name in ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json"] {
            if files.has_at_hand(name) {
                wanted.push(name.to_owned());
            }
        }
        if self.images {
            wanted.extend(images(files).unwrap_or_default());
        }
        Ok(wanted)
    }
}

/// The files of a text tokenizer.
pub(crate) fn tokenizer(_: &Files<'_>) -> lumina_hub::Result<Vec<String>> {
    Ok(vec![TOKENIZER.to_owned()])
}

/// The files of an image tokenizer, in a repository of its own or in a model's.
pub(crate) fn image_tokenizer(files: &Files<'_>) -> lumina_hub::Result<Vec<String>> {
    Ok(images(files).unwrap_or_else(|| vec![ImageTokenizer::CONFIG.to_owned()]))
}

/// The files of a LoRA adapter.
pub(crate) fn adapter(_: &Files<'_>) -> lumina_hub::Result<Vec<String>> {
    Ok(vec![Adapter::CONFIG.to_owned(), Adapter::WEIGHTS.to_owned()])
}

/// The files of an image tokenizer. `None` where there is none.
fn images(files: &Files<'_>) -> Option<Vec<String>> {
    let configs = IMAGE_FOLDERS.map(|folder| format!("{folder}{}", ImageTokenizer::CONFIG));
    let config = files.first_of(&configs.each_ref().map(String::as_str))?;
    let folder = config.trim_end_matches(ImageTokenizer::CONFIG);
    let weights = ImageTokenizer::WEIGHTS.map(|name| format!("{folder}{name}"));
    let weights = weights.each_ref().map(String::as_str);
    let names = format!("{folder}text_tokenizer.json");
    let mut wanted = vec![config.to_owned(), files.first_of(&weights).unwrap_or(weights[0]).to_owned()];
    if files.has_at_hand(&names) {
        wanted.push(names);
    }
    Some(wanted)
}
