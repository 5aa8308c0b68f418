//! Approvals of all statements of one shape: where they are found.

use interceptor_core::{approval::Uses, model::ApprovalId};
use rusqlite::{Connection, OptionalExtension as _};

use super::{Books, Kept, State, StoreError};

const INDEX: &str =
    "CREATE INDEX IF NOT EXISTS request_shape ON request (shape, opened) WHERE state = 'open'";

/// A docket that was begun before there were shapes gets a place for them.
pub(super) fn make_room(connection: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM pragma_table_info('request') WHERE name = 'shape'";
    if connection.query_row(sql, [], |_| Ok(())).optional()?.is_none() {
        connection.execute("ALTER TABLE request ADD COLUMN shape TEXT", [])?;
    }
    connection.execute(INDEX, [])?;
    Ok(())
}

/// Whether an approval is one of a shape.
pub(super) fn is_of(uses: Uses) -> bool {
    matches!(uses, Uses::Shape { .. })
}

impl Books<'_> {
    /// The newest open request that was approved for all of this shape.
    pub(super) fn of_shape(&self, shape: Option<&str>) -> Result<Option<Kept>, StoreError> {
        let Some(shape) = shape else { return Ok(None) };
        let sql = "SELECT id FROM request WHERE shape = ? AND state = 'open'
                   AND EXISTS (SELECT 1 FROM decision WHERE request = id) ORDER BY opened DESC, rowid DESC";
        let mut statement = self.work.prepare_cached(sql)?;
        let ids = statement.query_map([shape], |row| row.get::<_, String>(0))?;
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        for id in ids.iter().filter_map(|id| id.parse::<ApprovalId>().ok()) {
            let kept = self.find(id)?;
            let fits = |kept: &Kept| kept.standing.state == State::Open && is_of(kept.standing.uses());
            if let Some(kept) = kept.filter(fits) {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }
}
