// Package filewatch tells when the content of files may have changed: written in place, replaced by a rename,
// swapped through a symlink as Kubernetes does with ConfigMaps and Secrets, or created after absence.
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
	// settle is how long a file must be quiet before it is reported: one change makes several events.
	settle = 75 * time.Millisecond
	// pollEvery finds changes where no events come: network file systems, folders that do not exist yet.
	pollEvery = 10 * time.Second
)

// Watcher watches files from New until Run ends or Close. One goroutine at a time may use it.
type Watcher struct {
	files  []string
	seen   []fingerprint
	notify *fsnotify.Watcher // nil where the kernel gives no events
}

// fingerprint changes when the content of a file may have.
type fingerprint struct {
	target  string // after all symlinks; empty when there is no such file
	size    int64
	modTime time.Time
	info    fs.FileInfo // for os.SameFile; nil when there is no such file
}

// New notes what the files are now: make it before reading them, and no change after that reading is missed. The
// files need not exist. Run or Close it.
func New(files []string) *Watcher {
	w := &Watcher{files: files, seen: make([]fingerprint, len(files))}
	if notify, err := fsnotify.NewWatcher(); err == nil {
		w.notify = notify
	}
	w.watchFolders()
	for i, file := range files {
		w.seen[i] = look(file)
	}
	return w
}

// Run calls changed whenever the content of one of the files may have changed since New, also when it appears or
// goes away, until ctx is done; then it closes the watcher. Calls are serial, and changes close together give one
// call. Where the kernel gives no events, changes are found by looking every 10 seconds.
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

// Close ends a watcher that is not run. Further calls do nothing, nor does one on nil.
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
	w.watchFolders() // a swapped symlink leads to another folder
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

// watchFolders watches the folder of each file, and the one its symlinks lead to: a watch on a file itself
// does not survive its replacement. It drops folders that are no longer of interest.
func (w *Watcher) watchFolders() {
	if w.notify == nil {
		return
	}
	var folders []string
	for _, file := range w.files {
		folders = append(folders, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			folders = append(folders, filepath.Dir(target))
		}
	}
	watched := w.notify.WatchList()
	for _, folder := range folders {
		if !slices.Contains(watched, folder) {
			_ = w.notify.Add(folder) // one that does not exist is tried again at the next poll
		}
	}
	for _, folder := range watched {
		if !slices.Contains(folders, folder) {
			_ = w.notify.Remove(folder)
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
