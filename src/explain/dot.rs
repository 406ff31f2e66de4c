//! Draws the graph of values, for Graphviz.

use std::collections::VecDeque;

use indexmap::IndexSet;
use petgraph::dot::{Config, Dot};
use petgraph::graph::DiGraph;

use super::Explanation;
use crate::share::Decision;

/// Values that are drawn if nothing else is said: more are no picture.
const TOP: usize = 150;

impl Explanation {
    /// The values and what they are made of, as a graph for Graphviz: solid boxes wait in slots, round ones are made where
    /// they are needed, dashed ones are loaded. An arrow leads to what is needed. If there are more than fit, those nearest
    /// to the top-level value are drawn, or to those that [`Self::with_value`] asks for, and a note says so.
    pub fn dot(&self) -> String {
        let limit = self.top.unwrap_or(TOP);
        let drawn = self.drawn(limit);
        let mut graph = DiGraph::<String, &str>::new();
        let nodes: Vec<_> = drawn.iter().map(|at| graph.add_node(self.dot_label(*at))).collect();
        for (user, at) in nodes.iter().zip(&drawn) {
            // A value that is needed several times by another has one arrow.
            let used: IndexSet<usize> =
                self.needs[*at].iter().filter_map(|need| drawn.get_index_of(&(*need as usize))).collect();
            used.into_iter().for_each(|used| _ = graph.add_edge(*user, nodes[used], ""));
        }
        let n_left = self.values.len() - drawn.len();
        if n_left > 0 {
            graph.add_node(format!(
                "{} of {} values are drawn.\n{n_left} are left out: --top N draws more,\n--value TEXT others.",
                drawn.len(),
                self.values.len()
            ));
        }
        let attributes = |_, (node, _): (petgraph::graph::NodeIndex, &String)| match drawn.get_index(node.index()) {
            Some(at) => self.dot_style(*at).to_owned(),
            None => "shape=note, style=filled, fillcolor=lightyellow".to_owned(),
        };
        let no_attributes = |_, _| String::new();
        let config = [Config::EdgeNoLabel];
        Dot::with_attr_getters(&graph, &config, &no_attributes, &attributes).to_string()
    }

    /// The values that are drawn: from the top-level value down, or from those that were asked for up, breadth first.
    fn drawn(&self, limit: usize) -> IndexSet<usize> {
        let users;
        let (starts, next): (Vec<usize>, &[Vec<u32>]) = if self.filter.is_some() {
            let mut of: Vec<Vec<u32>> = vec![Vec::new(); self.values.len()];
            for (user, needs) in (0..).zip(&self.needs) {
                needs.iter().for_each(|need| of[*need as usize].push(user));
            }
            users = of;
            (self.subjects(), &users)
        } else {
            (vec![self.root], &self.needs)
        };
        let mut drawn: IndexSet<usize> = starts.iter().copied().take(limit).collect();
        let mut todo: VecDeque<usize> = drawn.iter().copied().collect();
        while let Some(at) = todo.pop_front() {
            for other in &next[at] {
                if drawn.len() >= limit {
                    return drawn;
                }
                if drawn.insert(*other as usize) {
                    todo.push_back(*other as usize);
                }
            }
        }
        drawn
    }

    fn dot_label(&self, at: usize) -> String {
        let value = &self.values[at];
        let place = value.waits.map(|waits| format!(", {waits}")).unwrap_or_default();
        let n = value.n_uses;
        let uses = if n > 1 { format!(", {n} uses") } else { String::new() };
        format!("{} {}\n{}{place}{uses}", value.id, value.value, value.decided())
    }

    fn dot_style(&self, at: usize) -> &'static str {
        match self.values[at].decision {
            Decision::Hoist => "shape=box, style=filled, fillcolor=lightblue",
            Decision::Keep => "shape=box, style=filled, fillcolor=palegreen",
            Decision::Load(_) => "shape=ellipse, style=dashed",
            Decision::Rebuild => "shape=ellipse, style=filled, fillcolor=mistyrose",
            Decision::Once => "shape=ellipse",
            Decision::Table => "shape=cylinder",
        }
    }
}
