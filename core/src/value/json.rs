//! placeholder
use super::ValueError;
pub fn validate(_text: &str) -> Result<(), ValueError> {
    Ok(())
}
pub fn to_jsonb(text: &str) -> Result<String, ValueError> {
    Ok(text.to_owned())
}
