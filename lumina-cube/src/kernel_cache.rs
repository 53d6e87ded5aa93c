//! Compiled kernels on disk, so that a later start does not compile them again.
//!
//! CubeCL keeps them in a database: PTX on CUDA, SPIR-V on Vulkan. An entry is of one kernel with its compile-time
//! arguments, one build of the program and one architecture of the device; the file is of one version of driver and
//! compiler. What cannot be read or written is compiled as without a cache.

use std::ffi::OsString;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Once;

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl::records::RecordLevel;
use cubecl_environment::persistence::{Access, Database};

/// The environment variable that names the folder, or `off`.
const VARIABLE: &str = "LUMINA_KERNEL_CACHE";

/// A database that is larger is begun again: it has the kernels of many builds.
const MAX_BYTES: u64 = 1 << 28;

/// Chooses the folder, once, unless the program or a `cubecl.toml` has configured CubeCL.
pub(crate) fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the build in the key, kernels of another build of this program would be taken for its own.
        if buildid::build_id().is_none() {
            return;
        }
        let Some(folder) = folder(std::env::var_os(VARIABLE), user_cache()) else { return };
        let Some(config) = configuration(CubeClRuntimeConfig::from_current_dir(), &folder) else { return };
        let file = folder.join(cubecl::environment::file_name(&config.environment.name));
        if is_usable(&file) {
            // `false` where the program came first: its configuration stays.
            CubeClRuntimeConfig::try_set(config);
        }
    });
}

/// The folder by the environment variable, or in the user's cache folder; `None` where there is to be no cache.
fn folder(setting: Option<OsString>, user_cache: Option<PathBuf>) -> Option<PathBuf> {
    match setting {
        Some(setting) if setting.is_empty() || setting == "off" => None,
        Some(folder) => Some(folder.into()),
        None => Some(user_cache?.join("lumina").join("kernels")),
    }
}

/// The user's cache folder. No other user can write there, which a temporary folder does not promise.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|path| path.is_absolute());
    if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        Some(home()?.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
    }
}

/// The configuration with the cache on, and a file in `folder`; `None` where `found`, of the current folder, is
/// somebody's own.
fn configuration(mut found: CubeClRuntimeConfig, folder: &Path) -> Option<CubeClRuntimeConfig> {
    if format!("{found:?}") != format!("{:?}", CubeClRuntimeConfig::default()) {
        return None;
    }
    found.compilation.cache = true;
    // A driver refuses the PTX of a compiler that is newer, so other versions have another file.
    #[cfg(feature = "cuda")]
    let versions = crate::cuda::versions();
    #[cfg(not(feature = "cuda"))]
    let versions = None::<String>;
    found.environment.name = versions.unwrap_or_else(|| "kernels".to_owned());
    found.environment.path = CacheConfig::Directory(folder.to_owned());
    found.environment.records.level = RecordLevel::Off;
    Some(found.override_from_env())
}

/// Whether CubeCL can use the database. All of it is read, as damage must not be met in the middle of a launch; a
/// damaged one is removed and begun again.
fn is_usable(file: &Path) -> bool {
    let bytes: u64 = files(file).iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).sum();
    if bytes > MAX_BYTES {
        remove(file);
    }
    let read = |access| catch_unwind(|| read_all(file, access)).unwrap_or_else(|_| Err("it is damaged".to_owned()));
    let Err(reason) = read(Access::ReadWrite) else { return true };
    // Another program writes it.
    if ["busy", "locked"].iter().any(|word| reason.to_lowercase().contains(word)) {
        return false;
    }
    // In a folder that must not be written, kernels of an earlier time are still read.
    if read(Access::ReadOnly).is_ok() {
        return true;
    }
    remove(file);
    read(Access::ReadWrite).is_ok()
}

fn read_all(file: &Path, access: Access) -> Result<(), String> {
    if access == Access::ReadWrite
        && let Some(folder) = file.parent()
    {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let database = Database::open_at(file, access)?;
    for namespace in database.summary() {
        let mut entries = 0;
        database.scan(&namespace.namespace, &mut |_, _| entries += 1);
        // What cannot be read is left out.
        if entries != namespace.entries {
            return Err(format!("{entries} of {} entries of {}", namespace.entries, namespace.namespace));
        }
    }
    Ok(())
}

/// The files of a database: its own, and its logs, which have its name and more.
fn files(file: &Path) -> Vec<PathBuf> {
    let Some((folder, name)) = file.parent().zip(file.file_name()) else { return Vec::new() };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()));
    named.map(|entry| entry.path()).collect()
}

/// Removes a database, as far as it can be.
fn remove(file: &Path) {
    for file in files(file) {
        let _ = std::fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_decides_before_the_users_folder() {
        let user = || Some(PathBuf::from("/home/a/.cache"));
        assert_eq!(folder(None, user()), Some("/home/a/.cache/lumina/kernels".into()));
        assert_eq!(folder(Some("/b".into()), user()), Some("/b".into()));
        assert_eq!(folder(Some("off".into()), user()), None);
        assert_eq!(folder(Some("".into()), user()), None);
        assert_eq!(folder(None, None), None);
    }

    #[test]
    fn a_configuration_of_the_program_stays() {
        let own = configuration(CubeClRuntimeConfig::default(), "/a".as_ref()).expect("nobody configured anything");
        assert!(own.compilation.cache && own.environment.path.root() == Path::new("/a"));
        let mut config = CubeClRuntimeConfig::default();
        config.streaming.max_streams += 1;
        assert!(configuration(config, "/a".as_ref()).is_none());
    }
}
