//! One pass through what runs together: the whole flow's, or one item's of a loop.
//!
//! A turn holds what its modules announce and what the host keeps for them. It sees what the turns around it hold, and
//! they see nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pype_core::flow::plan::{Endpoint, SubFlowId};
use pype_core::name::NodeId;
use pype_core::run::event::ItemPath;
use pype_core::template::{GlobalSetTwice, Globals, Iteration};
use serde_json::Value;

use crate::artifact::Kept;

/// The items of a list.
pub(super) type Items = Arc<Vec<Value>>;

/// See the module.
#[derive(Default)]
pub(super) struct Turn {
    /// Which item of each loop around it.
    pub(super) path: ItemPath,
    /// What `iter.*` stands for.
    pub(super) iteration: Option<Arc<Iteration>>,
    outer: Option<Arc<Turn>>,
    // Nodes of parallel sub flows set and read globals, each in a moment.
    // Who reads takes a snapshot that costs nothing; a write copies only what somebody still reads.
    globals: Mutex<Arc<Globals>>,
    // The same of what is kept.
    kept: Mutex<BTreeMap<Endpoint, Kept>>,
    lists: Mutex<BTreeMap<(NodeId, String), Items>>,
    ran: Mutex<BTreeSet<SubFlowId>>,
}

impl Turn {
    /// The turn of item `index` of a loop.
    pub(super) fn inner(self: &Arc<Self>, index: u64, item: Value, globals: Arc<Globals>) -> Self {
        Turn {
            path: self.path.inner(index),
            iteration: Some(Arc::new(Iteration { item, index, outer: self.iteration.clone() })),
            outer: Some(self.clone()),
            globals: Mutex::new(Arc::new(Globals::within(globals))),
            ..Turn::default()
        }
    }

    /// The globals so far.
    pub(super) fn globals(&self) -> Arc<Globals> {
        held(&self.globals).clone()
    }

    pub(super) fn set_global(&self, node: &NodeId, name: &str, value: Value) -> Result<(), GlobalSetTwice> {
        Arc::make_mut(&mut held(&self.globals)).set(node.as_str(), name, value)
    }

    /// Before another attempt: a node may announce again what it announced.
    pub(super) fn forget(&self, node: &NodeId) {
        Arc::make_mut(&mut held(&self.globals)).forget(node.as_str());
        held(&self.lists).retain(|(of, _), _| of != node);
    }

    /// Keeps what left by a port for readers in other sub flows.
    pub(super) fn keep(&self, from: Endpoint, rows: Kept) {
        held(&self.kept).insert(from, rows);
    }

    /// What left by a port, in this turn or one around it.
    pub(super) fn kept(&self, from: &Endpoint) -> Option<Kept> {
        self.outward().find_map(|turn| held(&turn.kept).get(from).cloned())
    }

    /// Takes the items of a list; gives back those that were there.
    pub(super) fn set_list(&self, node: &NodeId, name: &str, items: Vec<Value>) -> Option<Items> {
        held(&self.lists).insert((node.clone(), name.to_owned()), Arc::new(items))
    }

    pub(super) fn list(&self, node: &NodeId, name: &str) -> Option<Items> {
        held(&self.lists).get(&(node.clone(), name.to_owned())).cloned()
    }

    /// Notes that a sub flow runs in this session, and with it the loops around it, the innermost first: what follows any
    /// of them must run too.
    pub(super) fn note_run(&self, id: SubFlowId, loops: impl Iterator<Item = SubFlowId>) {
        for (turn, id) in self.outward().zip(std::iter::once(id).chain(loops)) {
            held(&turn.ran).insert(id);
        }
    }

    pub(super) fn has_run(&self, id: SubFlowId) -> bool {
        self.outward().any(|turn| held(&turn.ran).contains(&id))
    }

    fn outward(&self) -> impl Iterator<Item = &Turn> {
        std::iter::successors(Some(self), |turn| turn.outer.as_deref())
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
