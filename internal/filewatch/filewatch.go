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

// watcher is owned by the goroutine that runs it.
type watcher struct {
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

// Watch calls changed whenever the content of one of the files may have changed, also when it appears or goes
// away, until ctx is done; then it returns nil. Calls are serial, and changes close together give one call. The
// files need not exist. Where the kernel gives no events, changes are found by looking every 10 seconds. A
// change between the caller's reading the file and Watch's start is not seen.
func Watch(ctx context.Context, files []string, changed func()) error {
	return newWatcher(files).run(ctx, changed)
}

func (w *watcher) run(ctx context.Context, changed func()) error {
	defer w.close()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
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

func newWatcher(files []string) *watcher {
	w := &watcher{files: files, seen: make([]fingerprint, len(files))}
	if notify, err := fsnotify.NewWatcher(); err == nil {
		w.notify = notify
	}
	w.watchFolders()
	for i, file := range files {
		w.seen[i] = look(file)
	}
	return w
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
}

// events and faults are nil channels, which never deliver, without a kernel watch.
func (w *watcher) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *watcher) faults() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// look compares the files with what was seen last.
func (w *watcher) look(changed func()) {
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
func (w *watcher) watchFolders() {
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
