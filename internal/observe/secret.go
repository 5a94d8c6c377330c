package observe

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every way of printing a Secret yields.
const redacted = "[secret]"

// Secret is a text that must not reach a log, an error or a JSON answer: a password, a token, an address with credentials in it.
// Every way of printing it as a value, by slog, fmt or encoding/json, yields "[secret]" (do not make it the key of a map); Reveal is the one way to the text, easy to search for.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String implements fmt.Stringer.
func (s Secret) String() string { return redacted }

// Format implements fmt.Formatter, so that no verb (%x, %q, %#v) goes around String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which encoding/json and yaml use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
