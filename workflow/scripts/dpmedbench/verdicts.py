"""The verdicts of claims and comparisons, in words and signs."""

SUPPORTED, CONTRADICTED, NOT_RUN = "supported", "contradicted", "not run"
HIGHER, LOWER, SINGLE = "higher", "lower", "single runs"
UNCLEAR = "cannot be separated"
SIGNS = {
    SUPPORTED: "✓",
    CONTRADICTED: "✗",
    UNCLEAR: "≈",
    NOT_RUN: "–",
    HIGHER: "▲",
    LOWER: "▼",
    SINGLE: "–",
}
