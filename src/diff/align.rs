//! Aligns two sequences, so that one inserted item does not make all later ones differ.
//!
//! What begins and ends both is left as it is. Between, equal items are paired, then code objects of one name; the longest
//! run of pairs that stand in the same order are the anchors, the other pairs have moved. What has no partner is compared
//! with what stands between the same anchors. Time is that of sorting.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::values::Value;

/// What an item is matched by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Value,
    /// That of a code object.
    pub(super) name: Option<Value>,
    pub(super) type_name: &'static str,
}

/// What became of an item, by positions in the first sequence and in the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    /// It is still there, at least by name.
    Kept(usize, usize),
    /// The other stands in its place.
    Replaced(usize, usize),
    /// It is still there, at least by name, and others that stood before it now stand behind it, or the reverse.
    Moved(usize, usize),
    Removed(usize),
    Added(usize),
}

/// The edits that turn `a` into `b`, in the order of `a`.
pub(super) fn align(a: &[Item], b: &[Item]) -> Vec<Edit> {
    let equal = |(x, y): &(&Item, &Item)| x.value == y.value;
    let prefix = a.iter().zip(b).take_while(equal).count();
    let suffix = a[prefix..].iter().rev().zip(b[prefix..].iter().rev()).take_while(equal).count();
    let mut edits: Vec<Edit> = (0..prefix).map(|at| Edit::Kept(at, at)).collect();
    align_middle((a, prefix..a.len() - suffix), (b, prefix..b.len() - suffix), &mut edits);
    edits.extend((0..suffix).rev().map(|back| Edit::Kept(a.len() - 1 - back, b.len() - 1 - back)));
    edits
}

fn align_middle((a, range_a): (&[Item], Range<usize>), (b, range_b): (&[Item], Range<usize>), edits: &mut Vec<Edit>) {
    let mut partners = Partners { of_a: vec![None; a.len()], is_taken: vec![false; b.len()] };
    partners.pair_up(range_a.clone(), range_b.clone(), |at| Some(a[at].value), |at| Some(b[at].value));
    partners.pair_up(range_a.clone(), range_b.clone(), |at| a[at].name, |at| b[at].name);
    let is_anchor = longest_increasing(&partners.of_a);
    let (mut gap, mut next_b) = (Vec::new(), range_b.start);
    for at in range_a {
        match partners.of_a[at] {
            None => gap.push(at),
            Some(partner) if !is_anchor[at] => edits.push(Edit::Moved(at, partner)),
            Some(partner) => {
                partners.fill_gap((a, &gap), (b, next_b..partner), edits);
                gap.clear();
                edits.push(Edit::Kept(at, partner));
                next_b = partner + 1;
            }
        }
    }
    partners.fill_gap((a, &gap), (b, next_b..range_b.end), edits);
}

struct Partners {
    of_a: Vec<Option<usize>>,
    is_taken: Vec<bool>,
}

impl Partners {
    /// Pairs the items that have no partner yet: of each key the first with the first, the second with the second.
    fn pair_up<K: Hash + Eq>(
        &mut self,
        a: Range<usize>,
        b: Range<usize>,
        key_a: impl Fn(usize) -> Option<K>,
        key_b: impl Fn(usize) -> Option<K>,
    ) {
        let mut places: HashMap<K, VecDeque<usize>, RandomState> = HashMap::default();
        for at in b.filter(|at| !self.is_taken[*at]) {
            if let Some(key) = key_b(at) {
                places.entry(key).or_default().push_back(at);
            }
        }
        for at in a {
            if self.of_a[at].is_none()
                && let Some(key) = key_a(at)
                && let Some(partner) = places.get_mut(&key).and_then(VecDeque::pop_front)
            {
                self.of_a[at] = Some(partner);
                self.is_taken[partner] = true;
            }
        }
    }

    /// What stands between two anchors and has no partner: items of one type replace each other. Code objects do not,
    /// as they have different names.
    fn fill_gap(&self, (a, gap): (&[Item], &[usize]), (b, between): (&[Item], Range<usize>), edits: &mut Vec<Edit>) {
        let mut left_a: VecDeque<usize> = gap.iter().copied().collect();
        let mut left_b: VecDeque<usize> = between.filter(|at| !self.is_taken[*at]).collect();
        while let (Some(&x), Some(&y)) = (left_a.front(), left_b.front()) {
            let are_code = a[x].name.is_some() && b[y].name.is_some();
            let are_alike = a[x].type_name == b[y].type_name || left_a.len() == left_b.len();
            if are_alike && !are_code {
                edits.push(Edit::Replaced(x, y));
            }
            if are_alike || left_a.len() > left_b.len() {
                left_a.pop_front();
                edits.extend((!are_alike || are_code).then_some(Edit::Removed(x)));
            }
            if are_alike || left_a.len() < left_b.len() {
                left_b.pop_front();
                edits.extend((!are_alike || are_code).then_some(Edit::Added(y)));
            }
        }
        edits.extend(left_a.into_iter().map(Edit::Removed));
        edits.extend(left_b.into_iter().map(Edit::Added));
    }
}

/// Marks a longest run of positions whose numbers increase.
fn longest_increasing(numbers: &[Option<usize>]) -> Vec<bool> {
    // By length of a run, less one: where the one with the smallest last number ends; and by position, the one before.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; numbers.len()];
    for (at, number) in numbers.iter().enumerate().filter(|(_, number)| number.is_some()) {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut is_in = vec![false; numbers.len()];
    let mut last = ends.last().copied();
    while let Some(at) = last {
        is_in[at] = true;
        last = before[at];
    }
    is_in
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A letter is an item; equal letters are equal items. A digit is a code object, all of one name, none equal.
    fn items(text: &str, n_codes: &mut u32) -> Vec<Item> {
        let item = |letter: char| {
            *n_codes += 1;
            match letter.is_ascii_digit() {
                true => {
                    let name = Some(Value::Known(u32::from(letter)));
                    Item { value: Value::Known(1000 + *n_codes), name, type_name: "code" }
                }
                false => Item { value: Value::Known(u32::from(letter)), name: None, type_name: "str" },
            }
        };
        text.chars().map(item).collect()
    }

    fn said(a: &str, b: &str) -> String {
        let mut n_codes = 0;
        let edits = align(&items(a, &mut n_codes), &items(b, &mut n_codes));
        let kept = |edit: &&Edit| !matches!(edit, Edit::Kept(x, y) if a[*x..=*x] == b[*y..=*y]);
        edits.iter().filter(kept).map(|edit| format!("{edit:?}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_inserted_item_leaves_the_others_alone() {
        assert_eq!(said("abcd", "abXcd"), "Added(2)");
        assert_eq!(said("aXbYc", "abc"), "Removed(1) Removed(3)");
        assert_eq!(said("", "a"), "Added(0)");
        assert_eq!(said("aa", "aaa"), "Added(2)");
    }

    #[test]
    fn a_changed_item_is_replaced() {
        assert_eq!(said("abcd", "aXcY"), "Replaced(1, 1) Replaced(3, 3)");
        assert_eq!(said("abcd", "aXYcd"), "Replaced(1, 1) Added(2)");
    }

    #[test]
    fn items_in_another_order_have_moved() {
        assert_eq!(said("abc", "cab"), "Moved(2, 0)");
        assert_eq!(said("ab", "ba"), "Moved(0, 1)");
    }

    #[test]
    fn code_objects_are_matched_by_name() {
        assert_eq!(said("123", "1423"), "Added(1)");
        assert_eq!(said("12", "32"), "Removed(0) Added(0)");
        assert_eq!(said("12", "21"), "Moved(0, 1)");
    }
}
