package manifests_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // its types in the scheme
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install" // its types in the scheme
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // its types in the scheme
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// strict decodes as the API server does with fieldValidation=Strict: an unknown or repeated field
// is an error.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme,
	serializer.EnableStrict).UniversalDeserializer()

// decode reads all documents of a rendered manifest, and fills in what the API server would.
func decode(text []byte) ([]runtime.Object, error) {
	var objects []runtime.Object
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(document, nil, nil)
		if err != nil {
			return nil, err
		}
		legacyscheme.Scheme.Default(object)
		objects = append(objects, object)
	}
}

// mustDecode is decode for what must be sound.
func mustDecode(t *testing.T, text []byte) []runtime.Object {
	t.Helper()
	objects, err := decode(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return objects
}

// only returns the one object of a type.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	var found []T
	for _, object := range objects {
		if typed, ok := object.(T); ok {
			found = append(found, typed)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d objects of type %T, not one", len(found), *new(T))
	}
	return found[0]
}

// podTemplate returns the pods that an object makes, nil when it makes none.
func podTemplate(object runtime.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	}
	return nil
}

// invalid returns what the API server would refuse the object for, and what it would warn of.
func invalid(object runtime.Object) []string {
	accessor, ok := object.(metav1.Object)
	if !ok {
		return []string{fmt.Sprintf("%T has no metadata", object)}
	}
	if _, clusterWide := object.(*corev1.Namespace); !clusterWide && accessor.GetNamespace() == "" {
		accessor.SetNamespace("default") // as kubectl does
	}
	internal, err := legacyscheme.Scheme.ConvertToVersion(object,
		schema.GroupVersion{Group: object.GetObjectKind().GroupVersionKind().Group,
			Version: runtime.APIVersionInternal})
	if err != nil {
		return []string{err.Error()}
	}
	found, template := validate(internal)
	var complaints []string
	for _, each := range found {
		complaints = append(complaints, each.Error())
	}
	return append(complaints, pod.GetWarningsForPodTemplate(context.Background(),
		field.NewPath("template"), template, nil)...)
}

// validate validates as the API server's strategies do for a new object. The template is nil where
// there is none.
func validate(object runtime.Object) (field.ErrorList, *core.PodTemplateSpec) {
	switch o := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, podOptions(&o.Spec.Template)), &o.Spec.Template
	case *apps.StatefulSet:
		return appsvalidation.ValidateStatefulSet(o, podOptions(&o.Spec.Template)), &o.Spec.Template
	case *apps.DaemonSet:
		return appsvalidation.ValidateDaemonSet(o, podOptions(&o.Spec.Template)), &o.Spec.Template
	// its selector is the API server's to make, so its specification is validated as a CronJob's is
	case *batch.Job:
		template := &batch.JobTemplateSpec{Spec: o.Spec}
		return batchvalidation.ValidateJobTemplateSpec(template, field.NewPath("spec"),
			podOptions(&o.Spec.Template)), &o.Spec.Template
	case *batch.CronJob:
		template := &o.Spec.JobTemplate.Spec.Template
		return batchvalidation.ValidateCronJobCreate(o, podOptions(template)), template
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o), nil
	case *core.ResourceQuota:
		return corevalidation.ValidateResourceQuota(o), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o), nil
	}
	return field.ErrorList{field.NotSupported(field.NewPath("kind"), fmt.Sprintf("%T", object),
		[]string{"what this test knows"})}, nil
}

func podOptions(template *core.PodTemplateSpec) corevalidation.PodValidationOptions {
	return pod.GetValidationOptionsFromPodTemplate(template, nil)
}

// unrestricted returns what the restricted Pod Security Standard, in its latest version, forbids of
// a pod.
func unrestricted(template *corev1.PodTemplateSpec) ([]string, error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return nil, err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted,
		Version: podsecurity.LatestVersion()}
	var found []string
	for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
		if !result.Allowed {
			found = append(found, result.ForbiddenReason+": "+result.ForbiddenDetail)
		}
	}
	slices.Sort(found)
	return found, nil
}
