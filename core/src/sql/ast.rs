//! A view's text after its shape was checked: only what a view may contain, with places.
//!
//! `lower` builds it from sqlparser's tree and refuses the rest, so that `bind` matches on closed
//! enums and nothing slips through a wildcard. Names are folded as PostgreSQL folds them.

use crate::diagnostic::Place;
use crate::plan::{AggregateFunc, JoinKind};
use crate::value::Type;

/// An identifier, folded to lower case unless it was quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) distinct: bool,
    pub(super) items: Vec<Item>,
    pub(super) from: TableRef,
    pub(super) joins: Vec<JoinRef>,
    pub(super) filter: Option<Node>,
    /// Empty without GROUP BY.
    pub(super) group_by: Vec<Node>,
}

impl Select {
    /// One group over all rows, or GROUP BY; DISTINCT is told by its own flag.
    pub(super) fn is_grouped(&self) -> bool {
        !self.group_by.is_empty()
            || self.items.iter().any(|item| match item {
                Item::Expr { node, .. } => node.has_aggregate(),
                Item::Star { .. } => false,
            })
    }
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    /// The name is the alias, or the column's own name.
    Expr { node: Node, name: Name },
    /// `*`, or `t.*`.
    Star { table: Option<Vec<Name>>, place: Place },
}

#[derive(Clone, Debug)]
pub(super) struct TableRef {
    pub(super) schema: Option<Name>,
    pub(super) name: Name,
    pub(super) alias: Option<Name>,
}

impl TableRef {
    /// The name by which columns refer to it.
    pub(super) fn visible_name(&self) -> &Name {
        self.alias.as_ref().unwrap_or(&self.name)
    }
}

#[derive(Clone, Debug)]
pub(super) struct JoinRef {
    pub(super) kind: JoinKind,
    pub(super) table: TableRef,
    pub(super) on: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: NodeKind,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// One to three parts: column, table.column, schema.table.column.
    Column(Vec<Name>),
    /// As written; a sign in front is part of it, as in PostgreSQL's grammar.
    Number(String),
    /// A quoted literal, whose type is not known yet.
    Text(String),
    Bool(bool),
    Null,
    Negate(Box<Node>),
    Plus(Box<Node>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Binary(Op, Box<Node>, Box<Node>),
    IsNull {
        node: Box<Node>,
        negated: bool,
    },
    /// `IS [NOT] UNKNOWN`: as IS NULL, of booleans only.
    IsUnknown {
        node: Box<Node>,
        negated: bool,
    },
    IsBool {
        node: Box<Node>,
        value: bool,
        negated: bool,
    },
    /// `negated` is IS NOT DISTINCT FROM.
    Distinct {
        left: Box<Node>,
        right: Box<Node>,
        negated: bool,
    },
    In {
        node: Box<Node>,
        list: Vec<Node>,
        negated: bool,
    },
    Between {
        node: Box<Node>,
        low: Box<Node>,
        high: Box<Node>,
        negated: bool,
    },
    Like {
        node: Box<Node>,
        pattern: Box<Node>,
        negated: bool,
    },
    Case {
        operand: Option<Box<Node>>,
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    Coalesce(Vec<Node>),
    NullIf(Box<Node>, Box<Node>),
    Greatest(Vec<Node>),
    Least(Vec<Node>),
    Cast(Box<Node>, TypeName),
    /// A function of `functions::FUNCTIONS`.
    Call(String, Vec<Node>),
    /// The field, in lower case.
    Extract(String, Box<Node>),
    /// `COLLATE "C"`.
    CollateC(Box<Node>),
    Aggregate {
        func: AggregateFunc,
        /// As written, for messages.
        name: &'static str,
        argument: Option<Box<Node>>,
        filter: Option<Box<Node>>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum TypeName {
    Known(Type),
    /// `char` without a limit (`bpchar`) and enums are looked up in the catalog.
    Named {
        schema: Option<Name>,
        name: Name,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Concat,
    Arrow,
    LongArrow,
    HashLongArrow,
}

impl Op {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Concat => "||",
            Self::Arrow => "->",
            Self::LongArrow => "->>",
            Self::HashLongArrow => "#>>",
        }
    }
}

impl Node {
    pub(super) fn new(place: Place, kind: NodeKind) -> Self {
        Self { place, kind }
    }

    pub(super) fn boxed(place: Place, kind: NodeKind) -> Box<Self> {
        Box::new(Self { place, kind })
    }

    pub(super) fn has_aggregate(&self) -> bool {
        let mut found = matches!(self.kind, NodeKind::Aggregate { .. });
        self.for_each_child(&mut |child| found = found || child.has_aggregate());
        found
    }

    pub(super) fn has_column(&self) -> bool {
        let mut found = matches!(self.kind, NodeKind::Column(_));
        self.for_each_child(&mut |child| found = found || child.has_column());
        found
    }

    pub(super) fn for_each_column<'a>(&'a self, visit: &mut dyn FnMut(&'a [Name])) {
        if let NodeKind::Column(parts) = &self.kind {
            visit(parts);
        }
        self.for_each_child(&mut |child| child.for_each_column(visit));
    }

    fn for_each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        match &self.kind {
            NodeKind::Column(_)
            | NodeKind::Number(_)
            | NodeKind::Text(_)
            | NodeKind::Bool(_)
            | NodeKind::Null => {}
            NodeKind::Negate(node)
            | NodeKind::Plus(node)
            | NodeKind::Not(node)
            | NodeKind::IsNull { node, .. }
            | NodeKind::IsUnknown { node, .. }
            | NodeKind::IsBool { node, .. }
            | NodeKind::Cast(node, _)
            | NodeKind::Extract(_, node)
            | NodeKind::CollateC(node) => visit(node),
            NodeKind::Binary(_, left, right)
            | NodeKind::Distinct { left, right, .. }
            | NodeKind::NullIf(left, right)
            | NodeKind::Like { node: left, pattern: right, .. } => {
                visit(left);
                visit(right);
            }
            NodeKind::In { node, list, .. } => {
                visit(node);
                list.iter().for_each(visit);
            }
            NodeKind::Between { node, low, high, .. } => {
                visit(node);
                visit(low);
                visit(high);
            }
            NodeKind::Case { operand, branches, otherwise } => {
                operand.iter().for_each(|node| visit(node));
                for (condition, result) in branches {
                    visit(condition);
                    visit(result);
                }
                otherwise.iter().for_each(|node| visit(node));
            }
            NodeKind::And(nodes)
            | NodeKind::Or(nodes)
            | NodeKind::Coalesce(nodes)
            | NodeKind::Greatest(nodes)
            | NodeKind::Least(nodes)
            | NodeKind::Call(_, nodes) => nodes.iter().for_each(visit),
            NodeKind::Aggregate { argument, filter, .. } => {
                argument.iter().for_each(|node| visit(node));
                filter.iter().for_each(|node| visit(node));
            }
        }
    }
}
