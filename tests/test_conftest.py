"""The tiny model really is a SentenceTransformer."""


def test_tiny_model_embeds_to_unit_vectors(tiny_model_path):
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(tiny_model_path, device="cpu").encode(["hello world", "bye"])
    assert vectors.shape == (2, 32)
    assert abs(float((vectors[0] ** 2).sum()) - 1) < 1e-5
    assert abs(float(vectors[0] @ vectors[1])) < 0.999
