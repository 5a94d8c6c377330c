// Package observe is how operators see the server: logs, metrics and the admin port's pages. None of them carries content, tokens, addresses of
// mail or keys: what is secret has the type Secret, and labels of metrics come from fixed tables.
package observe

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes to w. The level is debug, info, warn or error; the format text (for people) or json (for programs).
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q is neither text nor json", format)
}
