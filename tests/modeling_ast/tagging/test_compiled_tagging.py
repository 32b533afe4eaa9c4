"""`ast-tag --compile`: the scores of the model as it is, by a graph that is made once, and what is said where none can be."""

import shutil

import numpy as np
import pytest
import torch
from tagged_models import SCORE_TOLERANCE, as_vector, stock_scores, windows_of

from modeling_ast import run_tagging
from modeling_ast.tagging.tagger import AudioTagger, TaggingError


@pytest.fixture
def captured(monkeypatch):
    """Compile for a backend that runs what was captured as it is, which takes no compiler; tells how often that was done."""
    torch._dynamo.reset()
    graphs, compile_model = [], torch.compile

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **settings: compile_model(model, backend=backend, **settings))
    yield graphs
    torch._dynamo.reset()


def test_scores_are_those_of_stock_transformers_by_one_graph(multi_label, clips, captured):
    tagger = AudioTagger.from_pretrained(multi_label, "cpu", compiled=True)
    results = list(tagger.tag_files(clips, batch_size=4))
    expected = stock_scores(multi_label, windows_of(clips[1], [0]), "sigmoid")[0]
    np.testing.assert_allclose(as_vector(results[1].labels), expected, atol=SCORE_TOLERANCE)
    assert len(captured) == 1


def fail(*_arguments, **_settings):
    raise RuntimeError("no compiler was found\nand more")


def test_without_a_compiler_it_is_said_before_any_file_is_heard(multi_label, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda _model, **_settings: fail)
    with pytest.raises(SystemExit) as ended:
        run_tagging.main(["/dev/null", "--model_name_or_path", str(multi_label), "--device", "cpu", "--compile"])
    assert ended.value.code == 2
    assert "--compile does not work here: no compiler was found On a CPU" in capsys.readouterr().err


def test_vectors_are_refused(multi_label, clips, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda model, **_settings: model)
    with pytest.raises(SystemExit):
        run_tagging.main(
            [str(clips[0]), "--model_name_or_path", str(multi_label), "--compile", "--embeddings", "file"]
            + ["--embeddings_output", "x.npy"]
        )
    assert "--compile makes a program for scores alone, not for --embeddings" in capsys.readouterr().err
    tagger = AudioTagger.from_pretrained(multi_label, "cpu", compiled=True)
    with pytest.raises(
        TaggingError, match="embeddings='file': What --compile makes gives scores alone. Leave it out."
    ):
        tagger.tag_files(clips, embeddings="file")


@pytest.mark.long  # half a minute of a C++ compiler
@pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler for inductor"
)
def test_the_default_compiler_gives_these_scores(multi_label, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tagger = AudioTagger.from_pretrained(multi_label, "cpu", compiled=True)
    (tags,) = tagger.tag_files(clips[1:2])
    expected = stock_scores(multi_label, windows_of(clips[1], [0]), "sigmoid")[0]
    np.testing.assert_allclose(as_vector(tags.labels), expected, atol=SCORE_TOLERANCE)
