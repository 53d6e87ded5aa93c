//! Captions of a scene that a training prompt may state: all of it, or only some.

use crate::arrangement::{RELATED, default_positions, place_in_order};
use crate::random::SeededRng;
use crate::{Caption, Mention, Object, ObjectKind, Position, Relation, Scene};

/// A caption that is true of the scene, in one of several forms: all objects with their positions; without them, if
/// they are where prompts without positions have them, those that are alike counted; the relation of two objects; and
/// any of these with some attributes unstated.
pub(super) fn random_prompt(scene: &Scene, rng: &mut SeededRng) -> Caption {
    let mut objects = scene.objects().to_vec();
    let vague = rng.below(5) < 2;
    let backdrop = Some(scene.backdrop());
    // A shade is a statement, as a fill is: without a word for it, the background is a plain one.
    let backdrop = if vague && !scene.backdrop().shaded && rng.below(2) == 0 { None } else { backdrop };

    let positions: Vec<Position> = objects.iter().map(|object| scene.position(object)).collect();
    if let [mut first, mut second] = objects[..]
        && first.kind != second.kind
        && RELATED.iter().any(|related| *related == positions[..])
        && rng.below(2) == 0
    {
        if rng.below(2) == 0 {
            (first, second) = (second, first);
        }
        if let Some(relation) = rng.choose(&clear_relations([first, second])) {
            let mut mentions = [first, second].map(|object| Mention::of(object.kind));
            if vague {
                leave_out(&mut mentions, rng);
            }
            return Caption::relation(mentions[0], relation, mentions[1], backdrop);
        }
    }
    let alike = objects.len() > 1 && objects.windows(2).all(|pair| pair[0].kind == pair[1].kind);
    let by_default = default_positions(objects.len(), scene.size());
    let kinds = objects.iter().map(|object| object.kind);
    let is_default = place_in_order(kinds.zip(by_default.iter().copied()), scene.size()).as_ref() == Some(&objects);
    let with_positions = !is_default || rng.below(10) < if alike { 1 } else { 3 };
    if with_positions {
        rng.shuffle(&mut objects);
    }
    let of = |object| Mention {
        position: Some(scene.position(object)).filter(|_| with_positions),
        ..Mention::of(object.kind)
    };
    let mut mentions: Vec<Mention> = objects.iter().map(of).collect();
    if vague {
        leave_out(&mut mentions, rng);
    }
    Caption::list(counted(mentions), backdrop).expect("as many objects as the scene has")
}

/// How the first object is to the second, to anyone's eye.
fn clear_relations(objects: [Object; 2]) -> Vec<Relation> {
    let [first, second] = objects.map(|object| object.centre_px());
    Relation::ALL.into_iter().filter(|relation| relation.clearly_holds(first, second) == Some(true)).collect()
}

/// Drops sizes and colours: of all objects, of some, or of none. Fills stay: an object without one is plain. So do
/// sizes and colours of kinds that are held out, without which a prompt would no longer ask for such a kind.
fn leave_out(mentions: &mut [Mention], rng: &mut SeededRng) {
    // In percent, how often an object keeps its size and its colour.
    let keeps = |rng: &mut SeededRng, chances: &[u32]| rng.choose(chances).unwrap_or(100);
    let size = keeps(rng, &[0, 0, 50, 100]);
    let colour = keeps(rng, &[0, 50, 100, 100]);
    for mention in mentions {
        let is_held_out = mention.kind().is_some_and(ObjectKind::is_held_out);
        mention.size = mention.size.filter(|_| rng.below(100) < size || is_held_out);
        mention.colour = mention.colour.filter(|_| rng.below(100) < colour || is_held_out);
    }
}

/// The mentions, neighbours that are alike as one.
fn counted(mentions: Vec<Mention>) -> Vec<Mention> {
    let mut counted: Vec<Mention> = Vec::with_capacity(mentions.len());
    for mention in mentions {
        match counted.last_mut().filter(|last| Mention { count: 1, ..**last } == mention) {
            Some(last) => last.count += 1,
            None => counted.push(mention),
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngPurpose;
    use crate::{Fill, Scenes, Split};

    fn allows(mention: &Mention, kind: ObjectKind) -> bool {
        mention.size.is_none_or(|size| size == kind.size)
            && mention.fill == kind.fill
            && mention.colour.is_none_or(|colour| colour == kind.colour)
            && mention.shape == kind.shape
    }

    /// Whether the objects of a scene can be assigned to the mentions of a caption, none left over.
    fn is_true(caption: &Caption, scene: &Scene) -> bool {
        fn assigned(mentions: &[Mention], left: &[crate::Object], scene: &Scene) -> bool {
            let Some((mention, others)) = mentions.split_first() else { return left.is_empty() };
            (0..left.len()).any(|index| {
                let object = &left[index];
                let fits = allows(mention, object.kind)
                    && mention.position.is_none_or(|position| position == scene.position(object));
                let without: Vec<_> = left.iter().filter(|other| *other != object).copied().collect();
                fits && assigned(others, &without, scene)
            })
        }
        caption.backdrop().is_none_or(|backdrop| backdrop == scene.backdrop())
            && (caption.backdrop().is_some() || !scene.backdrop().shaded)
            && assigned(&caption.objects(), scene.objects(), scene)
            && caption.stated_relation().is_none_or(|relation| {
                let objects = scene.objects();
                let mentions = caption.mentions();
                [[0, 1], [1, 0]].into_iter().any(|[first, second]| {
                    allows(&mentions[0], objects[first].kind)
                        && allows(&mentions[1], objects[second].kind)
                        && relation.clearly_holds(objects[first].centre_px(), objects[second].centre_px()) == Some(true)
                })
            })
    }

    #[test]
    fn prompts_for_held_out_kinds_ask_for_one() {
        let scenes = Scenes::new(9, Split::HeldOut, 256).unwrap();
        for index in 0..1000 {
            let scene = scenes.scene(index);
            let prompt = random_prompt(&scene, &mut SeededRng::new(1, Split::HeldOut, RngPurpose::Record, index));
            let asks = |mention: &Mention| mention.kind().is_some_and(ObjectKind::is_held_out);
            assert!(prompt.mentions().iter().any(asks), "{prompt} of {}", scene.caption());
        }
    }

    /// What a prompt does not say of places is the same in all scenes that it is true of.
    #[test]
    fn prompts_say_where_objects_are() {
        let scenes = Scenes::new(9, Split::Train, 256).unwrap();
        let (mut unplaced, mut placed) = (0, 0);
        for index in 0..2000 {
            let scene = scenes.scene(index);
            let prompt = random_prompt(&scene, &mut SeededRng::new(1, Split::Train, RngPurpose::Record, index));
            let mentioned = prompt.objects();
            if prompt.stated_relation().is_some() {
                let positions: Vec<_> = scene.objects().iter().map(|object| scene.position(object)).collect();
                assert!(RELATED.iter().any(|related| *related == positions[..]), "{prompt} of {}", scene.caption());
            } else if mentioned.iter().all(|mention| mention.position.is_none()) {
                unplaced += 1;
                let by_default = default_positions(mentioned.len(), scene.size());
                for ((mention, object), at) in mentioned.iter().zip(scene.objects()).zip(by_default) {
                    assert!(allows(mention, object.kind), "{prompt} of {}", scene.caption());
                    assert_eq!(scene.position(object), *at, "{prompt} of {}", scene.caption());
                }
            } else {
                placed += 1;
                assert!(mentioned.iter().all(|mention| mention.position.is_some()), "{prompt}");
            }
        }
        assert!(unplaced > 500 && placed > 500, "{unplaced} {placed}");
    }

    #[test]
    fn prompts_are_true_of_their_scene_and_of_all_forms() {
        let scenes = Scenes::new(9, Split::Train, 256).unwrap();
        let (mut counts, mut relations, mut placed, mut vague, mut nowhere) = (0, 0, 0, 0, 0);
        for index in 0..2000 {
            let scene = scenes.scene(index);
            let prompt = random_prompt(&scene, &mut SeededRng::new(1, Split::Train, RngPurpose::Record, index));
            assert!(is_true(&prompt, &scene), "{prompt} of {}", scene.caption());
            let any = |of: &dyn Fn(&Mention) -> bool| usize::from(prompt.mentions().iter().any(of));
            counts += any(&|mention| mention.count > 1);
            placed += any(&|mention| mention.position.is_some());
            vague += any(&|mention| mention.size.is_none() || mention.colour.is_none());
            relations += usize::from(prompt.stated_relation().is_some());
            nowhere += usize::from(prompt.backdrop().is_none());
            assert!(
                any(&|mention| mention.fill != Fill::Plain)
                    == usize::from(scene.objects().iter().any(|object| object.kind.fill != Fill::Plain))
            );
        }
        for count in [counts, relations, placed, vague, nowhere] {
            assert!((100..1500).contains(&count), "{counts} {relations} {placed} {vague} {nowhere}");
        }
    }
}
