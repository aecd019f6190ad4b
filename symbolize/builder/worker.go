// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"os"

	"github.com/lowflame/lowflame/objfile"
)

// socket is the descriptor a worker has from its parent.
const socket = 3

// Main is the worker: it takes a task from its parent, gives up all it could do
// beside it, and does it. It returns the exit status.
func Main() int {
	if err := work(); err != nil {
		fmt.Fprintf(os.Stderr, "lowflame: %s: %v\n", Worker, err)
		return 1
	}
	return 0
}

func work() error {
	var t task
	files, err := receive(socket, &t)
	if err != nil {
		return fmt.Errorf("receive task: %w; it is not to be run by hand", err)
	}
	if len(files) != len(t.Files) {
		return fmt.Errorf("%d files for %d", len(files), len(t.Files))
	}
	if err := confine(t.MemoryBytes, t.CPU); err != nil {
		return err
	}
	if err := send(socket, request{Ready: true}); err != nil {
		return err
	}
	r, err := build(t.Files, files)
	done := outcome{Result: r}
	if err != nil {
		done.Err = fmt.Sprintf("%.500s", err)
	}
	return send(socket, request{Done: &done})
}

func build(roles []role, files []*os.File) (Result, error) {
	var in Input
	var out *os.File
	objects := map[role]**objfile.Object{
		roleObject: &in.Object, roleSymbols: &in.Symbols, roleDebug: &in.Debug, roleAlt: &in.Alt, rolePackage: &in.Package,
	}
	for i, r := range roles {
		if r == roleOut {
			out = files[i]
			continue
		}
		to := objects[r]
		if to == nil {
			return Result{}, fmt.Errorf("file for %q", r)
		}
		o, err := open(files[i])
		if err != nil {
			return Result{}, fmt.Errorf("open %s: %w", r, err)
		}
		*to = o
	}
	if out == nil || in.Object == nil {
		return Result{}, errors.New("files are missing")
	}
	in.OpenDWO, in.CreateTemp = askDWO, askTemp
	return Build(out, in)
}

func open(f *os.File) (*objfile.Object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return objfile.Open(f, st.Size())
}

// ask sends a request and returns the file that is the answer.
func ask(r request) (*os.File, error) {
	if err := send(socket, r); err != nil {
		return nil, err
	}
	var a answer
	files, err := receive(socket, &a)
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%d files for an answer", len(files))
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files[0], nil
}

func askTemp() (*os.File, error) { return ask(request{Temp: true}) }

func askDWO(name, compDir string) (*objfile.Object, func(), error) {
	f, err := ask(request{DWO: &dwoName{name, compDir}})
	if err != nil {
		return nil, nil, err
	}
	o, err := open(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return o, func() { f.Close() }, nil
}
