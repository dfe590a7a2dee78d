// Package filewatch reports when the content of files may have changed, however that happens: a
// write in place, a rename over the file, a swapped symlink, or a file that appears or goes away.
//
// The kernel's events alone are not enough. A watch on a file ends with the inode, and both an
// editor and Kubernetes replace the inode: Kubernetes mounts a ConfigMap or a Secret as a chain of
// symlinks and swaps one of them. So a Watcher watches directories, follows the symlinks anew after
// each event, and compares what the files are with what they were. An event only says that it is
// time to look. Where no events come, as on a network file system, it looks every 10 seconds.
package filewatch

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a file must be quiet before it is reported: one change makes several
	// events.
	settle = 75 * time.Millisecond
	// pollEvery finds changes where no events come: on network file systems, and in directories
	// that do not exist yet.
	pollEvery = 10 * time.Second
)

// Watcher watches files from New until Run ends or Close. One goroutine at a time may use it.
type Watcher struct {
	files  []string
	seen   []fingerprint
	notify *fsnotify.Watcher // nil where the kernel gives no events
}

// fingerprint changes when the content of a file may have changed.
type fingerprint struct {
	target  string // after all symlinks; empty when there is no such file
	size    int64
	modTime time.Time
	info    fs.FileInfo // for os.SameFile; nil when there is no such file
}

// New notes what the files are now. Call it before you read them, and no later change is missed.
// The files need not exist. Run or Close the Watcher.
func New(files []string) *Watcher {
	w := &Watcher{files: files, seen: make([]fingerprint, len(files))}
	if notify, err := fsnotify.NewWatcher(); err == nil {
		w.notify = notify
	}
	w.watchDirectories()
	for i, file := range files {
		w.seen[i] = look(file)
	}
	return w
}

// Run calls changed whenever a file may have changed since New, until ctx is done. Then it closes
// the watcher. A file that appears or goes away has changed. Calls are serial, and changes close
// together give one call.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	defer w.Close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	quiet := time.NewTimer(settle) // the first look is for what happened since New
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.events():
			quiet.Reset(settle)
		case <-w.faults(): //nolint:errcheck // whatever it says, events may be missing
			quiet.Reset(settle)
		case <-poll.C:
			w.look(changed)
		case <-quiet.C:
			w.look(changed)
		}
	}
}

// Close ends a watcher that is not run. A second call does nothing, nor does one on nil.
func (w *Watcher) Close() {
	if w != nil && w.notify != nil {
		_ = w.notify.Close()
	}
}

// events and faults are nil channels, which never deliver, without a kernel watch.
func (w *Watcher) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *Watcher) faults() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// look compares the files with what was seen last.
func (w *Watcher) look(changed func()) {
	w.watchDirectories() // a swapped symlink leads to another directory
	different := false
	for i, file := range w.files {
		now := look(file)
		if !now.equal(w.seen[i]) {
			w.seen[i], different = now, true
		}
	}
	if different {
		changed()
	}
}

// watchDirectories watches the directory of each file and the one that its symlinks lead to, and
// drops those that no file is in any more.
func (w *Watcher) watchDirectories() {
	if w.notify == nil {
		return
	}
	var directories []string
	for _, file := range w.files {
		directories = append(directories, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			directories = append(directories, filepath.Dir(target))
		}
	}
	watched := w.notify.WatchList()
	for _, directory := range directories {
		if !slices.Contains(watched, directory) {
			_ = w.notify.Add(directory) // one that does not exist is tried again at the next poll
		}
	}
	for _, directory := range watched {
		if !slices.Contains(directories, directory) {
			_ = w.notify.Remove(directory)
		}
	}
}

func look(file string) fingerprint {
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fingerprint{}
	}
	info, err := os.Stat(target)
	if err != nil {
		return fingerprint{}
	}
	return fingerprint{target: target, size: info.Size(), modTime: info.ModTime(), info: info}
}

func (f fingerprint) equal(other fingerprint) bool {
	if f.info == nil || other.info == nil {
		return f.info == nil && other.info == nil
	}
	return f.target == other.target && f.size == other.size && f.modTime.Equal(other.modTime) &&
		os.SameFile(f.info, other.info)
}
