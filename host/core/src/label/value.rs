//! The values in a rule, and how they compare with those of labels.

use std::cmp::Ordering;

use serde_json::Value;

/// A plain value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`; a missing label is not null.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number or a text.
    Ordered(Ordered),
}

/// A value that comes before or after others of its kind: numbers by value, texts by their characters' code points.
#[derive(Debug, Clone, PartialEq)]
pub enum Ordered {
    /// A whole number.
    Int(i64),
    /// Any other number. No label equals one that is not finite, and a rule with such a one cannot be written down.
    Float(f64),
    /// A text.
    Text(String),
}

macro_rules! ordered_from {
    ($($given:ty => $make:expr),* $(,)?) => {$(
        impl From<$given> for Ordered {
            fn from(value: $given) -> Self {
                let make: fn($given) -> Ordered = $make;
                make(value)
            }
        }

        impl From<$given> for Literal {
            fn from(value: $given) -> Self {
                Literal::Ordered(value.into())
            }
        }
    )*};
}

ordered_from! {
    i32 => |number| Ordered::Int(number.into()),
    u32 => |number| Ordered::Int(number.into()),
    i64 => Ordered::Int,
    f64 => Ordered::Float,
    &str => |text| Ordered::Text(text.to_owned()),
    String => Ordered::Text,
}

impl From<bool> for Literal {
    fn from(value: bool) -> Self {
        Literal::Bool(value)
    }
}

impl From<Ordered> for Literal {
    fn from(value: Ordered) -> Self {
        Literal::Ordered(value)
    }
}

impl Literal {
    /// Is this the value of the label?
    pub(super) fn equals(&self, label: &Value) -> bool {
        match self {
            Literal::Null => label.is_null(),
            Literal::Bool(value) => label.as_bool() == Some(*value),
            Literal::Ordered(value) => value.order_of(label) == Some(Ordering::Equal),
        }
    }
}

impl Ordered {
    /// Where the label stands as seen from this value; nowhere if it is of another kind.
    pub(super) fn order_of(&self, label: &Value) -> Option<Ordering> {
        order(Comparable::of_label(label)?, Comparable::from(self))
    }

    /// Where `other` stands as seen from this value.
    pub(super) fn order_of_value(&self, other: &Ordered) -> Option<Ordering> {
        order(Comparable::from(other), Comparable::from(self))
    }

    /// Can it be written down?
    pub(super) fn is_finite(&self) -> bool {
        match self {
            Ordered::Float(number) => number.is_finite(),
            Ordered::Int(_) | Ordered::Text(_) => true,
        }
    }
}

/// Both sides of a comparison. Labels hold whole numbers of 64 bits, signed or not.
#[derive(Clone, Copy)]
enum Comparable<'a> {
    Int(i128),
    Float(f64),
    Text(&'a str),
}

impl<'a> Comparable<'a> {
    fn of_label(label: &'a Value) -> Option<Self> {
        match label {
            Value::Number(number) => {
                let signed = number.as_i64().map(i128::from);
                let whole = signed.or_else(|| number.as_u64().map(i128::from)).map(Comparable::Int);
                whole.or_else(|| number.as_f64().map(Comparable::Float))
            }
            Value::String(text) => Some(Comparable::Text(text)),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl<'a> From<&'a Ordered> for Comparable<'a> {
    fn from(value: &'a Ordered) -> Self {
        match value {
            Ordered::Int(number) => Comparable::Int(i128::from(*number)),
            Ordered::Float(number) => Comparable::Float(*number),
            Ordered::Text(text) => Comparable::Text(text),
        }
    }
}

fn order(left: Comparable<'_>, right: Comparable<'_>) -> Option<Ordering> {
    use Comparable::{Float, Int, Text};
    match (left, right) {
        (Int(left), Int(right)) => Some(left.cmp(&right)),
        (Float(left), Float(right)) => left.partial_cmp(&right),
        (Int(left), Float(right)) => int_with_float(left, right),
        (Float(left), Int(right)) => int_with_float(right, left).map(Ordering::reverse),
        (Text(left), Text(right)) => Some(left.cmp(right)),
        (Text(_), Int(_) | Float(_)) | (Int(_) | Float(_), Text(_)) => None,
    }
}

/// Exact, where turning a large `int` into a float would round it: the whole parts first, then the fraction.
fn int_with_float(int: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // Saturates beyond any label, on the right side.
    match int.cmp(&(float.trunc() as i128)) {
        Ordering::Equal => 0.0.partial_cmp(&float.fract()),
        unequal @ (Ordering::Less | Ordering::Greater) => Some(unequal),
    }
}
