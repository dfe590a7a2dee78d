package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	secretsidecarv1 "github.com/secret-sidecar/secret-sidecar/gen/secretsidecar/v1"
)

// scanPiece is how much of the text one message holds.
const scanPiece = 64 << 10

func (a *app) scanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "scan FILE",
		Short: "Say where a log holds values that the sidecar gave out",
		Long: `Sends a file, or standard input for "-", to the running sidecar, and prints a line for
each value in it that the sidecar gave out: the offset in bytes, the reference and the connection.
It never prints a value. It finds values of 16 bytes or more, as they are, in base64, and escaped as
JSON or a URL.

The sidecar's configuration has to turn scanning on, and a caller rule has to name Scan.

Exit codes: 0 none was found, 1 one was found or the scan failed, 2 wrong usage.`,
		Example: `  secret-sidecar scan flow.log
  kubectl logs flow-7 | secret-sidecar scan -`,
		Args: between(`one file, or "-" for standard input`, 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.openText(args[0])
			if err != nil {
				return err
			}
			defer text.Close() // it was only read
			found, err := a.scan(cmd.Context(), text)
			if err != nil {
				return err
			}
			if found > 0 {
				return fmt.Errorf("%s found: rotate what has leaked, and keep the text from being stored",
					plural(found, "value"))
			}
			return nil
		},
	}
}

func (a *app) openText(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	file, err := os.Open(name) // #nosec G304 -- the file that the user names
	if err != nil {
		return nil, usageError{fmt.Errorf("open the text: %w", err)}
	}
	return file, nil
}

// scan sends the text and prints the findings as they come.
func (a *app) scan(ctx context.Context, text io.Reader) (found int, err error) {
	c, err := a.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := secretsidecarv1.NewSecretServiceClient(c.conn).Scan(ctx)
	if err != nil {
		return 0, c.explain(err, 0)
	}
	sent := make(chan error, 1)
	go func() { // ends with the text, or when the stream does, or at its next read after cancel
		err := sendText(stream, text)
		sent <- err
		if err != nil {
			cancel() // the sidecar would wait for more
		}
	}()
	out := bufio.NewWriter(a.out)
	found, err = printFindings(out, stream)
	if flushErr := out.Flush(); flushErr != nil {
		return found, flushErr
	}
	if err == nil {
		return found, <-sent
	}
	select {
	case readErr := <-sent:
		if readErr != nil {
			return found, readErr
		}
	default:
	}
	return found, c.explain(err, 0)
}

// sendText sends the text in pieces. The error is that of the text: when the stream ends, its
// reader says why.
func sendText(stream secretsidecarv1.SecretService_ScanClient, text io.Reader) error {
	piece := make([]byte, scanPiece)
	for {
		n, err := text.Read(piece)
		if n > 0 {
			ended := stream.Send(&secretsidecarv1.ScanRequest{Data: piece[:n]})
			if ended != nil {
				return nil //nolint:nilerr // the stream's reader says why
			}
		}
		if errors.Is(err, io.EOF) {
			_ = stream.CloseSend() // its reader says what went wrong
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the text: %w", err)
		}
	}
}

func printFindings(
	out io.Writer, stream secretsidecarv1.SecretService_ScanClient,
) (found int, err error) {
	for {
		finding, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found++
		reference := finding.GetPath()
		if finding.GetKey() != "" {
			reference += "/" + finding.GetKey()
		}
		_, err = fmt.Fprintln(out, finding.GetOffset(), reference, finding.GetConnection())
		if err != nil {
			return found, err
		}
	}
}
