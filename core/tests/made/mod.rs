//! Catalogs that tests make up.

use walview_core::catalog::{Collation, Column};
use walview_core::value::Type;

pub(crate) fn column(name: &str, ty: Type, not_null: bool) -> Column {
    Column {
        name: name.to_owned(),
        attnum: 0,
        collation: if ty == Type::Text { Collation::C } else { Collation::None },
        ty,
        type_oid: 0,
        type_modifier: -1,
        not_null,
        generated: false,
        toastable: false,
        added: None,
    }
}
