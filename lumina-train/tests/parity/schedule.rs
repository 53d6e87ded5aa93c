//! The learning rate at fractional epochs.

use lumina_testing::{cases, report};
use lumina_train::optim::EpochSchedule;

#[test]
fn learning_rates() {
    let mut ran = 0;
    for case in cases("training/schedule.json") {
        let schedule: EpochSchedule = serde_json::from_value(case.clone()).unwrap();
        for at in case["at"].as_array().unwrap() {
            let (epoch, expected) = (at["epoch"].as_f64().unwrap(), at["lr"].as_f64().unwrap());
            let found = schedule.learning_rate_at(epoch);
            assert!(
                (found - expected).abs() <= 1e-9 * schedule.learning_rate,
                "{schedule:?} at {epoch}: {found}, not {expected}"
            );
            ran += 1;
        }
    }
    report("learning rates", ran);
}
