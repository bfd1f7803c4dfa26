//! After a query has failed: the first row, in the files that it was reading, that polars cannot read.

use polars::prelude::*;
use polars_plan::dsl::{FileScanIR, ScanSources};
use polars_plan::plans::{ArenaLpIter, IR};
use pype_plugin::prelude::*;

use super::{csv, json};

/// Goes through the text files of the plan. `None` if they hold no bad row: then the query failed over something else.
pub(crate) fn first_bad_row(lazy: &LazyFrame) -> Option<Error> {
    let plan = lazy.clone().to_alp_optimized().ok()?;
    let mut nodes = plan.lp_arena.iter(plan.lp_top);
    nodes.find_map(|(_, node)| in_scan(node))
}

fn in_scan(node: &IR) -> Option<Error> {
    let IR::Scan { sources: ScanSources::Paths(paths), file_info, scan_type, unified_scan_args, .. } = node else {
        return None;
    };
    let mut paths = paths.iter().map(|path| path.as_std_path());
    match scan_type.as_ref() {
        FileScanIR::NDJson { .. } => {
            let read =
                |name: &PlSmallStr| unified_scan_args.projection.as_ref().is_none_or(|names| names.contains(name));
            let schema: Schema = file_info.schema.iter_fields().filter(|field| read(field.name())).collect();
            paths.find_map(|path| json::first_bad_line(path, &schema))
        }
        FileScanIR::Csv { options } => {
            let mut schema = file_info.schema.as_ref().clone();
            if let Some(name) = &unified_scan_args.include_file_paths {
                schema.shift_remove(name);
            }
            let (schema, projection) = (Arc::new(schema), unified_scan_args.projection.as_deref());
            paths.find_map(|path| csv::first_bad_row(path, options, schema.clone(), projection))
        }
        _ => None,
    }
}
