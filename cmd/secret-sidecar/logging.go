package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

// logFlags are the flags about the log.
type logFlags struct {
	level, format *choice
}

// addLogFlags defines them; the first level is the default.
func addLogFlags(cmd *cobra.Command, levels ...string) logFlags {
	return logFlags{
		level:  addChoice(cmd, "log-level", "the least important lines to log", levels...),
		format: addChoice(cmd, "log-format", "how to write the log, on standard error", "json", "text"),
	}
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level.value)); err != nil {
		panic(err) // the flag takes slog's names only
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readableDuration}
	if f.format.value == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// readableDuration writes "10s" where the JSON handler would write nanoseconds.
func readableDuration(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() == slog.KindDuration {
		attr.Value = slog.StringValue(attr.Value.Duration().String())
	}
	return attr
}
