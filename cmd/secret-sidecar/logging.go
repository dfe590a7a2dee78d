package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/secret-sidecar/secret-sidecar/config"
	"github.com/secret-sidecar/secret-sidecar/internal/logging"
)

// logFlags are the flags about the log.
type logFlags struct {
	level, format *choice
	cmd           *cobra.Command
}

// addLogFlags defines them; the first level is the default.
func addLogFlags(cmd *cobra.Command, levels ...string) logFlags {
	return logFlags{
		cmd: cmd,
		level: addChoice(cmd, "log-level",
			"the least important lines to log; wins over log.level in the file", levels...),
		format: addChoice(cmd, "log-format", "how to write the log, on standard error", "json",
			"text"),
	}
}

// sidecarLog is the log of a running sidecar.
type sidecarLog struct {
	*slog.Logger
	repeats *logging.Repeats
	level   *slog.LevelVar
	initial slog.Level // the flag's, given or not
	given   bool       // the flag was given, so the file does not change the level
}

// open makes the log. Close it.
func (f logFlags) open(w io.Writer) *sidecarLog {
	log := &sidecarLog{repeats: logging.NewRepeats(), level: new(slog.LevelVar),
		given: f.cmd.Flags().Changed("log-level")}
	if err := log.initial.UnmarshalText([]byte(f.level.value)); err != nil {
		panic(err) // the flag takes slog's names only
	}
	log.level.Set(log.initial)
	options := &slog.HandlerOptions{Level: log.level, ReplaceAttr: readableDuration}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if f.format.value == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	log.Logger = slog.New(log.repeats.Handler(logging.WithTraces(handler)))
	return log
}

// close writes the repeats that the log still holds back.
func (l *sidecarLog) close() { l.repeats.Close() }

// follow sets the log's level to the file's, unless the command line names one.
func (l *sidecarLog) follow(settings *config.Config) {
	wanted := l.initial
	if settings.LogLevel != nil {
		wanted = *settings.LogLevel
	}
	switch {
	case wanted == l.level.Level():
	case l.given:
		l.Warn("--log-level overrides log.level", "level", l.level.Level(), "file", wanted)
	default:
		// the lower one, so that this line is logged
		l.level.Set(min(wanted, l.level.Level()))
		l.Info("the log level has changed", "level", wanted)
		l.level.Set(wanted)
	}
}

// readableDuration writes "10s" where the JSON handler would write nanoseconds.
func readableDuration(_ []string, attr slog.Attr) slog.Attr {
	if attr.Value.Kind() == slog.KindDuration {
		attr.Value = slog.StringValue(attr.Value.Duration().String())
	}
	return attr
}
