//! What a value must be to leave a template: a text has no place for `null`, and neither a text nor a config for a
//! missing name or an infinite number.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

/// May it become part of a text? minijinja would write `None`, `undefined` and `inf`.
pub(super) fn check_text(value: &Value) -> Result<(), Error> {
    check(value, &|one| match one.kind() {
        ValueKind::None => Err(Error::new(ErrorKind::InvalidOperation, "`null` has no place in a text")),
        _ => plain(one),
    })
}

/// May it become a config? JSON would make `null` of a missing name and of an infinite number.
pub(super) fn check_config(value: &Value) -> Result<(), Error> {
    check(value, &plain)
}

/// Makes the filters that write text refuse `null`, of which they would write `None`.
pub(super) fn guard_filters(environment: &mut Environment<'static>) {
    let writing_text = [
        ("capitalize", Value::from_function(filters::capitalize)),
        ("format", Value::from_function(filters::format)),
        ("indent", Value::from_function(filters::indent)),
        ("lower", Value::from_function(filters::lower)),
        ("pprint", Value::from_function(filters::pprint)),
        ("replace", Value::from_function(filters::replace)),
        ("string", Value::from_function(filters::string)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("upper", Value::from_function(filters::upper)),
    ];
    for (name, filter) in writing_text {
        environment.add_filter(name, move |state: &mut State, given: Rest<ValueOrKwargs>| {
            let given = given.into_values();
            given.iter().try_for_each(check_text)?;
            filter.call(state, &given)
        });
    }
    let join = Value::from_function(filters::join);
    environment.add_filter("join", move |state: &mut State, given: Rest<ValueOrKwargs>| {
        let given = given.into_values();
        check_text(&what_is_joined(state, &given)?)?;
        join.call(state, &given)
    });
}

fn check(value: &Value, one: &dyn Fn(&Value) -> Result<(), Error>) -> Result<(), Error> {
    one(value)?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| check(&item, one)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| check(&value.get_item(&key)?, one)),
        _ => Ok(()),
    }
}

fn plain(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Number if f64::try_from(value.clone()).is_ok_and(|number| !number.is_finite()) => {
            Err(Error::new(ErrorKind::InvalidOperation, "a number in it is infinite, or is none at all"))
        }
        _ => Ok(()),
    }
}

/// `tables | join(', ', attribute='name')` joins names, and does not mind what else is in the tables.
fn what_is_joined(state: &mut State, given: &[Value]) -> Result<Value, Error> {
    let Some(items) = given.first() else { return Err(Error::from(ErrorKind::MissingArgument)) };
    match attribute(given) {
        Some(attribute) => {
            let attribute = Kwargs::from_iter([("attribute", attribute)]);
            state.apply_filter("map", &[items.clone(), attribute.into()])
        }
        None => Ok(items.clone()),
    }
}

/// The third of the arguments, or the one called so.
fn attribute(given: &[Value]) -> Option<Value> {
    let named = given.iter().skip(1).find_map(|one| Kwargs::try_from(one.clone()).ok()?.get("attribute").ok()?);
    named.or_else(|| given.get(2).filter(|one| one.as_str().is_some()).cloned())
}
