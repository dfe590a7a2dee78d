package cache

import (
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds the goroutines that wait for a load.
const maxIdleWorkers = 16

// workers run loads, each on a goroutine that continues with the next one. A new goroutine begins
// with a small stack, and growing it takes a tenth of the CPU of a load.
type workers struct {
	tasks chan func() // handed from who has one to an idle worker
	idle  atomic.Int32
	ended chan struct{} // closed by end
	all   sync.WaitGroup
}

func newWorkers() *workers { return &workers{tasks: make(chan func()), ended: make(chan struct{})} }

// run runs the task on a worker. It does not block.
func (w *workers) run(task func()) {
	select {
	case w.tasks <- task:
	default:
		w.all.Go(func() { w.work(task) })
	}
}

func (w *workers) work(task func()) {
	for {
		task()
		if w.idle.Add(1) > maxIdleWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case task = <-w.tasks:
			w.idle.Add(-1)
		case <-w.ended:
			return
		}
	}
}

// end waits until every worker has ended. No task may be running, or come later.
func (w *workers) end() {
	close(w.ended)
	w.all.Wait()
}
