//! Control flow and states, which the executor itself runs.

use crate::registry::{Def, Run, executed};

pub(super) const OPS: &[Def] = &[
    executed("cond", Run::Cond),
    executed("while_loop", Run::WhileLoop),
    executed("read_state", Run::ReadState),
    executed("write_state", Run::UpdateState),
    executed("coreml_update_state", Run::UpdateState),
];
