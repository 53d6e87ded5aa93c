//! A run is resumed with the options that it was begun with.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result};

/// Options that may change: nothing that is computed depends on them.
const FREE: [&str; 3] = ["checkpoint_every", "keep_checkpoints", "sharding"];

/// An error where the options of a checkpoint are not those given; it names the first that differs. A number at one of
/// the paths `may_grow` may have become larger.
pub(crate) fn check_same_options<T: Serialize>(
    checkpoint: &Path,
    saved: &T,
    given: &T,
    may_grow: &[&str],
) -> Result<()> {
    // `saved` was read from JSON, where a number may lose its last digit. `given` has to go the same way.
    let json = serde_json::to_vec(given).expect("options have a JSON form");
    let given: Value = serde_json::from_slice(&json).expect("it was just written");
    let saved = serde_json::to_value(saved).expect("options have a JSON form");
    match first_difference(&saved, &given, "", may_grow) {
        None => Ok(()),
        Some((field, saved, given)) => Err(different(checkpoint, &field, &saved.to_string(), &given.to_string())),
    }
}

/// The error of a run that is resumed with another value of `field`.
pub(crate) fn different(checkpoint: &Path, field: &str, saved: &str, given: &str) -> Error {
    let [field, saved, given] = [field, saved, given].map(str::to_owned);
    Error::DifferentOptions { checkpoint: checkpoint.to_owned(), field, saved, given }
}

/// The path of the first field that differs, with both its values.
fn first_difference(saved: &Value, given: &Value, path: &str, may_grow: &[&str]) -> Option<(String, Value, Value)> {
    if let (Value::Object(saved), Value::Object(given)) = (saved, given) {
        let keys = saved.keys().chain(given.keys().filter(|key| !saved.contains_key(*key)));
        return keys.filter(|key| !FREE.contains(&key.as_str())).find_map(|key| {
            let [saved, given] = [saved, given].map(|object| object.get(key).unwrap_or(&Value::Null));
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            first_difference(saved, given, &path, may_grow)
        });
    }
    let grew = may_grow.contains(&path) && saved.as_u64().zip(given.as_u64()).is_some_and(|(old, new)| old < new);
    (saved != given && !grew).then(|| (path.to_owned(), saved.clone(), given.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let saved = json!({ "seed": 1, "schedule": { "epochs": 2, "rate": 0.1 }, "keep_checkpoints": 2 });
        let check = |given: Value| check_same_options("run".as_ref(), &saved, &given, &["schedule.epochs"]);
        assert!(check(saved.clone()).is_ok());
        let mut other = saved.clone();
        other["keep_checkpoints"] = json!(5);
        assert!(check(other.clone()).is_ok());
        other["schedule"]["epochs"] = json!(3);
        assert!(check(other.clone()).is_ok(), "it may grow");
        let mut fewer = saved.clone();
        fewer["schedule"]["epochs"] = json!(1);
        let error = check(fewer).unwrap_err().to_string();
        assert!(error.starts_with("run: saved with `schedule.epochs` 2, resumed with 1"), "{error}");
        other["schedule"]["rate"] = json!(0.2);
        let error = check(other).unwrap_err().to_string();
        assert!(error.starts_with("run: saved with `schedule.rate` 0.1, resumed with 0.2"), "{error}");
        let error = check(json!({ "seed": 1, "schedule": null })).unwrap_err().to_string();
        assert!(error.contains("`schedule`") && error.contains("null"), "{error}");
    }

    #[test]
    fn numbers_that_change_on_their_way_through_json_are_the_same() {
        for value in (1..2000).map(|n| 1.0 / f64::from(n) * 1e-5) {
            let saved: f64 = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
            assert!(check_same_options("run".as_ref(), &saved, &value, &[]).is_ok(), "{value}");
        }
    }
}
